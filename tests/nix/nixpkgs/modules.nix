# The evaluator of modules: imports, options, definitions with priorities, types that merge.
lib:

let
  inherit (builtins)
    attrNames
    concatMap
    filter
    foldl'
    isAttrs
    isFunction
    isList
    isString
    length
    listToAttrs
    map
    ;

  show = builtins.concatStringsSep ".";
  kind = value: value._type or null;
  isOption = value: isAttrs value && kind value == "option";

  # A definition as the sets of plain attributes that it stands for, with its properties pushed into them.
  pushDown =
    definition:
    if kind definition == "merge" then
      concatMap pushDown definition.contents
    else if kind definition == "if" then
      map (builtins.mapAttrs (_: lib.mkIf definition.condition)) (pushDown definition.content)
    else if kind definition == "override" then
      map (builtins.mapAttrs (_: lib.mkOverride definition.priority)) (pushDown definition.content)
    else
      [ definition ];

  # A definition as values with priorities.
  discharge =
    definition:
    if kind definition == "merge" then
      concatMap discharge definition.contents
    else if kind definition == "if" then
      if definition.condition then discharge definition.content else [ ]
    else if kind definition == "override" then
      map (found: found // { inherit (definition) priority; }) (discharge definition.content)
    else
      [
        {
          priority = 100;
          value = definition;
        }
      ];

  strongest =
    definitions:
    let
      found = concatMap discharge definitions;
      least = foldl' (least: one: if one.priority < least then one.priority else least) 9999 found;
    in
    map (one: one.value) (filter (one: one.priority == least) found);

  union = sets: attrNames (foldl' (a: b: a // b) { } sets);

  mergeValues =
    location: type: definitions:
    let
      values = strongest definitions;
      wrong = filter (value: !type.check value) values;
    in
    if wrong != [ ] then
      throw "A definition for option `${show location}' is not of type `${type.name}'."
    else
      type.merge location values;

  equal =
    location: values:
    if filter (value: value != builtins.head values) values != [ ] then
      throw "The option `${show location}' has conflicting definition values."
    else
      builtins.head values;

  scalar = name: check: {
    inherit name check;
    merge = equal;
  };

  types = rec {
    bool = scalar "boolean" builtins.isBool;
    int = scalar "integer" builtins.isInt;
    str = scalar "string" isString;
    path = scalar "path" (
      value: builtins.isPath value || value ? outPath || (isString value && builtins.substring 0 1 value == "/")
    );
    package = scalar "package" (value: value ? outPath);
    ints = {
      positive = scalar "positive integer" (value: builtins.isInt value && value > 0);
      between = low: high: scalar "integer" (value: builtins.isInt value && value >= low && value <= high);
    };
    lines = {
      name = "lines";
      check = isString;
      merge = _: builtins.concatStringsSep "\n";
    };
    unspecified = {
      name = "unspecified";
      check = _: true;
      merge =
        location: values:
        if length values == 1 then builtins.head values else throw "The option `${show location}' is defined multiple times.";
    };
    attrs = {
      name = "attribute set";
      check = isAttrs;
      merge = _: foldl' (a: b: a // b) { };
    };
    nullOr = type: {
      name = "null or ${type.name}";
      check = value: value == null || type.check value;
      merge =
        location: values: if filter (value: value != null) values == [ ] then null else type.merge location values;
    };
    listOf = type: {
      name = "list of ${type.name}";
      check = isList;
      merge = location: values: map (value: mergeValues location type [ value ]) (builtins.concatLists values);
    };
    attrsOf = attributes false;
    # Does not look at a definition to know whether there is one.
    lazyAttrsOf = attributes true;
    attributes = lazy: type: {
      name = "attribute set of ${type.name}";
      check = isAttrs;
      merge =
        location: values:
        let
          definitions = name: concatMap (value: lib.optional (value ? ${name}) value.${name}) values;
          defined = name: lazy || concatMap discharge (definitions name) != [ ];
        in
        lib.genAttrs (filter defined (union values)) (
          name: mergeValues (location ++ [ name ]) type (definitions name)
        );
    };
    submodule = module: {
      name = "submodule";
      check = value: isAttrs value || isFunction value;
      merge =
        location: values:
        (evalModules {
          # As with the real type, a set defines values only: it may have a value named `options`.
          modules = [ module ] ++ map (value: if isFunction value then value else { config = value; }) values;
          specialArgs.name = lib.last location;
          prefix = location;
        }).config;
    };
  };

  # Declarations of one option, of which each may add what the others lack.
  declare =
    location:
    foldl' (
      a: b:
      let
        both = filter (key: key != "_type" && a ? ${key} && b ? ${key}) (attrNames b);
      in
      if both == [ ] then a // b else throw "The option `${show location}' is already declared."
    ) { };

  mergeTree =
    location: declarations: definitions:
    let
      plain = concatMap pushDown definitions;
      unknown = filter (name: !(foldl' (a: b: a // b) { } declarations) ? ${name}) (union plain);
      children = lib.genAttrs (union declarations) (
        name:
        let
          here = location ++ [ name ];
          declared = map (set: set.${name}) (filter (set: set ? ${name}) declarations);
          defined = map (set: set.${name}) (filter (set: set ? ${name}) plain);
          option = declare here declared;
          given = lib.optional (option ? default) (lib.mkOptionDefault option.default) ++ defined;
          value =
            if option.readOnly or false && length given > 1 then
              throw "The option `${show here}' is read-only, but it's set multiple times."
            else if concatMap discharge given == [ ] then
              throw "The option `${show here}' was accessed but has no value defined. Try setting the option."
            else
              (option.apply or (x: x)) (mergeValues here (option.type or types.unspecified) given);
          subtree = mergeTree here declared defined;
        in
        {
          config = if builtins.any isOption declared then value else subtree.config;
          options = if builtins.any isOption declared then option else subtree.options;
        }
      );
      side = which: lib.mapAttrs (_: child: child.${which}) children;
    in
    {
      config =
        if unknown != [ ] then
          throw "The option `${show (location ++ [ (builtins.head unknown) ])}' does not exist."
        else
          side "config";
      # Told by declarations alone, so that what a module defines may depend on what there is.
      options = side "options";
    };

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      arguments = specialArgs // {
        inherit lib;
        inherit (result) config options;
      };
      load =
        module:
        let
          isFile = builtins.isPath module || isString module;
          content = if isFile then import module else module;
          applied =
            if isFunction content then
              content (builtins.intersectAttrs (builtins.functionArgs content) arguments)
            else
              content;
        in
        {
          key = if isFile then toString module else null;
          imports = applied.imports or [ ];
          options = applied.options or { };
          config =
            if applied ? config || applied ? options then
              applied.config or { }
            else
              removeAttrs applied [ "imports" ];
        };
      collect =
        seen: todo:
        if todo == [ ] then
          [ ]
        else
          let
            one = load (builtins.head todo);
            rest = builtins.tail todo;
          in
          if one.key != null && builtins.elem one.key seen then
            collect seen rest
          else
            [ one ] ++ collect (seen ++ lib.optional (one.key != null) one.key) (one.imports ++ rest);
      all = collect [ ] modules;
      result = mergeTree prefix (map (one: one.options) all) (map (one: one.config) all);
    in
    result;
in
{
  inherit evalModules types;
}
