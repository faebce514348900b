# A system of files that are at hand: what is in ../../../content was put there by tests/nix/closure/make.py.
{
  lib,
  pkgs,
  ...
}:

let
  content = ../../../content;
  machine = builtins.fromJSON (builtins.readFile ../../../machine.json);
  userland = builtins.path {
    path = "${content}/userland";
    name = machine.userland;
  };
  copy = name: source: pkgs.runCommand name { } "mkdir -p $out; cp ${source} $out/";
in
{
  boot.kernelParams = machine.params;
  imageScript.package = pkgs.runCommand "vmtests" { script = "#!/bin/sh\nexec ${machine.vmtests} \"$@\"\n"; } ''
    mkdir -p $out/bin
    printf %s "$script" > $out/bin/vmtests
    chmod +x $out/bin/vmtests
  '';
  image.repart.name = machine.name;
  image.repart.version = null;
  system.build = {
    # The userland is an input, so Nix finds in the output what refers to it.
    toplevel = pkgs.runCommand "reference-system" { inherit userland; } "cp -r ${content}/system $out";
    kernel = copy "linux" "${content}/bzImage";
    initialRamdisk = copy "initrd" "${content}/initrd";
  };
  systemd.package = pkgs.runCommand "systemd" { } ''
    mkdir -p $out/lib/systemd/boot/efi
    cp ${content}/systemd-bootx64.efi $out/lib/systemd/boot/efi/
  '';
  virtualisation.googleComputeRepart.root = machine.root;
}
