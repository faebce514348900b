"""What the nightly workflow runs beside the suite."""
