"""The examples of docs/examples, as somebody would copy them."""
