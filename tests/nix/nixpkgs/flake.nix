{
  description = "Stands in for nixpkgs where there is none";

  outputs = _: {
    lib = import ./lib.nix // {
      nixosSystem = import ./nixos.nix;
    };
    legacyPackages.x86_64-linux = import ./pkgs.nix;
  };
}
