"""Machines: an accelerator, firmware and hardware, put together and powered on."""
