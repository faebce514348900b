# `lib.nixosSystem`, over the options that are here.
{
  modules,
  pkgs ? import ./pkgs.nix,
}:

let
  lib = import ./lib.nix;
in
lib.evalModules {
  modules = [ ./nixos/modules/base.nix ] ++ modules;
  specialArgs = {
    inherit pkgs;
    modulesPath = toString ./nixos/modules;
  };
}
