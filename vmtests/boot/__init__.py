"""Following a boot: from the bytes of a console and the events of a machine to stages and a verdict."""
