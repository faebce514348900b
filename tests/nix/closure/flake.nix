{
  description = "A closure without nixpkgs, as an image by the project's own modules";

  outputs =
    _:
    let
      machine = builtins.fromJSON (builtins.readFile ./machine.json);
      nixos = import ./tests/nix/nixpkgs/nixos.nix {
        modules = [
          ./nix/modules/google-compute-repart.nix
          ./nix/modules/image-script.nix
          ./nix/hosts
          ./tests/nix/closure/configuration.nix
        ];
        pkgs = import ./tests/nix/nixpkgs/pkgs.nix // {
          closureInfo = import ./tests/nix/closure/closure-info.nix machine.python;
        };
      };
    in
    {
      packages.x86_64-linux = {
        inherit (nixos.config.system.build) imageScript imageSpec toplevel;
      };
    };
}
