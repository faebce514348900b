{
  # OWNER: the account whose vmtests you use; a copy of your own is "path:/home/me/vmtests".
  inputs.vmtests.url = "github:OWNER/vmtests";
  inputs.nixpkgs.follows = "vmtests/nixpkgs";

  outputs =
    { nixpkgs, vmtests, ... }:
    let
      system = "x86_64-linux";
      machine = nixpkgs.lib.nixosSystem {
        modules = [
          vmtests.nixosModules.google-compute-repart
          vmtests.nixosModules.image-script
          {
            nixpkgs.hostPlatform = system;
            virtualisation.googleComputeImage.efi = true;
            system.stateVersion = "26.05";
            services.nginx.enable = true;
          }
        ];
      };
    in
    {
      packages.${system} = { inherit (machine.config.system.build) image imageScript; };
      devShells.${system}.default = nixpkgs.legacyPackages.${system}.mkShell {
        inputsFrom = [ vmtests.devShells.${system}.default ];
        packages = [
          (nixpkgs.legacyPackages.${system}.python3.withPackages (_: [ vmtests.packages.${system}.vmtests ]))
        ];
      };
    };
}
