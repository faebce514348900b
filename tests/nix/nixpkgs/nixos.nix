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
    utils.systemdUtils.lib.definitions =
      name: format: definitions:
      pkgs.linkFarm name (
        lib.mapAttrsToList (file: content: {
          name = "${file}.conf";
          path = format.generate "${file}.conf" content;
        }) definitions
      );
    modulesPath = toString ./nixos/modules;
  };
}
