"""NixOS out of the real nixpkgs, with Debian's programs in the place of what only a compiler could make."""
