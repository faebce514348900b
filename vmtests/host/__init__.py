"""What this host gives: tools, accelerator, firmware, room for machines, places for files."""
