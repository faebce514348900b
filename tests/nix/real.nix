# What only a real nixpkgs can tell (make nix-check NIXPKGS=path): names that the stand-in offers and nixpkgs has not,
# and the derivation of every combination of the modules.
{ nixpkgs }:

let
  lib = import (nixpkgs + "/lib");
  system = "x86_64-linux";
  pkgs = import nixpkgs { inherit system; };
  evaluate =
    modules:
    import (nixpkgs + "/nixos/lib/eval-config.nix") {
      inherit modules;
      system = null;
    };

  standIn = {
    lib = import ./nixpkgs/lib.nix;
    packages = import ./nixpkgs/pkgs.nix;
    inherit (import ./nixpkgs/nixos.nix { modules = standInModules; }) options;
  };
  standInModules = map (name: ./nixpkgs/nixos/modules + name) upstream;
  upstream = [
    "/virtualisation/google-compute-image.nix"
    "/image/repart.nix"
  ];
  real = evaluate (
    map (name: nixpkgs + "/nixos/modules" + name) upstream ++ [ { nixpkgs.hostPlatform = system; } ]
  );

  missing = where: offered: had: map (name: "${where}.${name}") (lib.subtractLists (builtins.attrNames had) offered);
  paths =
    at: set:
    lib.concatMap (
      name:
      let
        value = set.${name};
      in
      if value._type or null == "option" then
        [ (at ++ [ name ]) ]
      else if builtins.isAttrs value then
        paths (at ++ [ name ]) value
      else
        [ ]
    ) (builtins.attrNames set);

  absent =
    missing "lib" (builtins.attrNames (removeAttrs standIn.lib [
      # Helpers of its own.
      "letters"
    ])) lib
    ++ missing "lib.types" (builtins.attrNames (removeAttrs standIn.lib.types [ "attributes" ])) lib.types
    ++ missing "pkgs" (builtins.attrNames standIn.packages) pkgs
    ++ map (path: "options.${lib.showOption path}") (
      builtins.filter (path: !lib.hasAttrByPath path real.options) (paths [ ] standIn.options)
    );

  modules = ../../nix/modules;
  example = [
    ../../nix/hosts
    (modules + "/google-compute-repart.nix")
  ];
  build = more: (evaluate (example ++ more)).config.system.build;
  derivations = {
    debug = (build [ (modules + "/debug.nix") ]).toplevel.drvPath;
    bloat =
      (build [
        (modules + "/bloat.nix")
        { bloat.size = "2G"; }
      ]).toplevel.drvPath;
    image = (build [ ]).image.drvPath;
    imageSpec = (build [ ]).imageSpec.drvPath;
    overlayStore = (build [ { virtualisation.googleComputeRepart.localOverlayStore = true; } ]).toplevel.drvPath;
    variant =
      (evaluate [
        {
          nixpkgs.hostPlatform = system;
          system.stateVersion = lib.trivial.release;
          image.modules.google-compute-repart = {
            imports = [ (modules + "/google-compute-repart.nix") ];
            virtualisation.googleComputeImage.efi = true;
          };
        }
      ]).config.system.build.images.google-compute-repart.drvPath;
  };
in
if absent == [ ] then
  derivations
else
  throw "the stand-in for nixpkgs offers what NixOS ${lib.trivial.release} has not: ${lib.concatStringsSep ", " absent}"
