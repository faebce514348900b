"""The unmodified gcloud against the emulator, with real machines."""
