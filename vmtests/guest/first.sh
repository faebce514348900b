# What vmtests/guest/serial.py types at a guest's first prompt: every paragraph as one line, without its comments.

# Canonical input without echo. `command` keeps a shell that lacks an option from giving up the whole line.
stty -echo -tostop cols 500 2>/dev/null;
command set +o emacs +o vi 2>/dev/null

command unset PROMPT_COMMAND PS0 IFS HISTFILE TMOUT 2>/dev/null;
command unalias -a 2>/dev/null;
command set +eum 2>/dev/null;
[ -z "$BASH_VERSION" ] || { set +H +o history; trap - DEBUG; };
PS1= PS2= TERM=dumb; export TERM

# Answer. Twice, since a kernel message that falls into one of the two lines mostly leaves the other whole.
_vm_say() {
printf '\n%s:%s:%s.\n%s:%s:%s.\n' "$_vm_t" "$1" "${#1}" "$_vm_t" "$1" "${#1}";
}

# _vm HALF HALF LENGTH FUNCTION ARGUMENT...: call a function, if nothing of the call was lost on the way. That it was
# is said once, not twice, since the call is made again for each time.
_vm() { _vm_t=$1$2; _vm_l=$3; shift 3; _vm_x="$*";
if [ "${#_vm_x}" -eq "$_vm_l" ]; then "$@"; else printf '\n%s:damaged:7.\n' "$_vm_t"; fi;
}

# FILE NUMBER TEXT: append a chunk in the notation of printf %b, once.
_vm_put() { if [ "$2" -eq 1 ]; then _vm_n=0; (umask 077; : >"$_vm_d/$1"); fi;
if [ "$2" -eq "$((_vm_n + 1))" ]; then printf '%b' "$3" >>"$_vm_d/$1" && _vm_n=$2; fi;
_vm_say "$_vm_n";
}

# FILE DIRECTORY...: the first directory in which the file can be made.
_vm_where() { _vm_x=$1; shift;
for _vm_d in "$@" ""; do [ -z "$_vm_d" ] || (umask 077; echo >"$_vm_d/$_vm_x") 2>/dev/null && break; done;
_vm_say "$_vm_d";
}

# FILE: take its functions.
_vm_load() { . "$_vm_d/$1"; rm -f "$_vm_d/$1"; _vm_say ok; }
