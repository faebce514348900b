"""Tests of the static checks of images."""
