"""The suite itself, held to guests that are sound and to some that are not, without a VM."""
