# As much of nixpkgs' library as the project's modules use, and a small evaluator of modules. It is strict where the
# real one is, and knows less everywhere: what passes here must pass there.
let
  lib = rec {
    inherit (builtins)
      concatMap
      concatStringsSep
      elem
      filter
      genList
      listToAttrs
      mapAttrs
      replaceStrings
      ;
    concatMapStringsSep =
      separator: f: list:
      concatStringsSep separator (map f list);
    last = list: builtins.elemAt list (builtins.length list - 1);
    findFirst =
      wanted: default: list:
      let
        found = filter wanted list;
      in
      if found == [ ] then default else builtins.head found;
    unique = builtins.foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
    hasAttrByPath =
      path: set:
      path == [ ]
      || builtins.isAttrs set
        && set ? ${builtins.head path}
        && hasAttrByPath (builtins.tail path) set.${builtins.head path};
    trivial.release = "26.05";
    throwIf = condition: message: value: if condition then throw message else value;
    optional = condition: x: if condition then [ x ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    optionalString = condition: text: if condition then text else "";
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    mapAttrs' =
      f: set:
      listToAttrs (map (name: f name set.${name}) (builtins.attrNames set));
    mapAttrsToList =
      f: set:
      map (name: f name set.${name}) (builtins.attrNames set);
    splitString =
      separator: text:
      filter builtins.isString (builtins.split (replaceStrings [ "." ] [ "\\." ] separator) text);
    toUpper = replaceStrings (letters "abcdefghijklmnopqrstuvwxyz") (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    letters = text: genList (index: builtins.substring index 1 text) (builtins.stringLength text);
    escapeShellArg = text: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString text)}'";
    escapeURL = replaceStrings [ "%" ":" "/" "?" "&" "=" ] [ "%25" "%3A" "%2F" "%3F" "%26" "%3D" ];
    makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
    toLower = replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (letters "abcdefghijklmnopqrstuvwxyz");
    # Properties of definitions.
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkForce = mkOverride 50;
    mkDefault = mkOverride 1000;
    mkOptionDefault = mkOverride 1500;
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };

    # Declarations.
    mkOption = declaration: declaration // { _type = "option"; };
    mkEnableOption =
      what:
      mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };

    inherit (import ./modules.nix lib) evalModules types;
  };
in
lib
