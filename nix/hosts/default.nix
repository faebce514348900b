# The example: a Compute Engine machine with nothing but what the image needs.
{
  nixpkgs.hostPlatform = "x86_64-linux";
  virtualisation.googleComputeImage.efi = true;
  system.stateVersion = "26.05";
}
