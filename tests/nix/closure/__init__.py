"""A closure without nixpkgs, and the flake that makes an image of it."""
