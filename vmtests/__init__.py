"""vmtests proves, by booting it, that a disk image really boots."""
