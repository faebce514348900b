# Sourced by the guest's shell; vmtests/guest/serial.py types its calls. Works in bash, dash and busybox ash.
# What first.sh defines is there already. Every function is called through _vm, and answers by _vm_say.
#
# A call has a nonce in two halves, and its answer has them joined: an echo of the call is never an answer. A call
# may come twice, because answers get lost between kernel messages, and does its work once.
#
# _vm_t: the nonce; _vm_d: directory of the files; _vm_j: id of the last command; _vm_p: its files; _vm_w: its process
# group; _vm_a: its state once it ended. _vm_b: id of the last command whose shell waited; _vm_m: the last time that was
# told; _vm_r: what came of it.

_vm_u=$(umask)

# ID null|stdin HINT HINT [TEXT]: start a command, that in the file or TEXT in the notation of printf %b, in a process
# group of its own; the joined hints tell its end.
_vm_go() {
	if [ "$_vm_j" != "$1" ]; then
		_vm_x=/dev/null
		[ "$2" = null ] || _vm_x=$_vm_d/$1.i
		_vm_start "$1" "$_vm_x" "$3$4" "$5"
	fi
	_vm_say ok
}

# ID [TEXT]: see a command as the last, and make its files; without a TEXT it is in one already.
_vm_files() {
	_vm_j=$1 _vm_a='' _vm_p=$_vm_d/$1
	# Without a subshell for the umask: a process costs a slow guest ten milliseconds.
	umask 077
	[ -z "$2" ] || printf '%b\n' "$2" >"$_vm_p.c"
	: >"$_vm_p.o"
	: >"$_vm_p.e"
	: >"$_vm_p.r"
	umask "$_vm_u"
}

# ID STDIN HINT [TEXT]: start the shell of a command, and see it as the last; without a TEXT it is in its file.
# Not in the foreground: the shell answers while a command runs, and needs no Ctrl-C to end one.
_vm_start() {
	_vm_files "$1" "$4"
	# Where that is nothing to the command.
	[ -n "${LC_ALL+x}" ] || LC_ALL=C
	set -m
	{
		(
			"${BASH:-sh}" "$_vm_p.c" <"$2" >"$_vm_p.o" 2>"$_vm_p.e"
			_vm_rc=$? _vm_t=$3
			printf '%s\n' "$_vm_rc" >"$_vm_p.r"
			if [ -n "$BASH_VERSION" ] && _vm_short o && _vm_o=$_vm_x && _vm_short e; then
				_vm_say "$_vm_rc \\ $_vm_o \\ $_vm_x"
			else
				printf '\n%s\n' "$_vm_t"
			fi
		) &
	} 2>/dev/null
	set +m
	_vm_w=$!
	disown "$_vm_w" 2>/dev/null
}

# STREAM: put an output that is short and plain into _vm_x, with \\ for a backslash, \n for a line end, \c for a colon.
_vm_short() {
	[ "$LC_ALL" = C ] || LC_ALL=C
	# Status 0: there was a NUL, or more.
	! IFS= read -r -d '' -n 2000 _vm_x <"$_vm_p.$1" || return 1
	_vm_x=${_vm_x//\\/\\\\} _vm_x=${_vm_x//:/\\c} _vm_x=${_vm_x//$'\n'/\\n}
	[[ $_vm_x != *[!\ -~]* ]]
}

# ID LIMIT: a word and a number: "run 0"; "end CODE" or "gone 0" (killed from outside), each with
# four words for either output: encoding, size (-1: no wc in this guest), checksum and size of the encoded text
# (-: no cksum); "big-o SIZE" or "big-e SIZE"; "lost 0" where the shell knows no such command.
_vm_state() {
	if [ "$_vm_j" != "$1" ]; then
		_vm_say 'lost 0'
		return
	fi
	if [ -z "$_vm_a" ]; then
		_vm_c='gone 0'
		if ! [ -s "$_vm_p.r" ] && kill -0 "$_vm_w" 2>/dev/null; then
			_vm_say 'run 0'
			return
		fi
		if [ -s "$_vm_p.r" ]; then
			read -r _vm_c <"$_vm_p.r"
			_vm_c="end $_vm_c"
		fi
		_vm_a=$_vm_c
		for _vm_s in o e; do
			# Most outputs are empty, and every process costs a slow guest ten milliseconds.
			if ! [ -s "$_vm_p.$_vm_s" ]; then
				_vm_a="$_vm_a base64 0 - -"
				continue
			fi
			_vm_z=$(wc -c <"$_vm_p.$_vm_s" 2>/dev/null) || _vm_z=-1
			if [ "$_vm_z" -gt "$2" ]; then
				_vm_a="big-$_vm_s $((_vm_z))"
				break
			fi
			_vm_encode "$_vm_p.$_vm_s" "$((_vm_z))"
			_vm_a="$_vm_a $_vm_k $((_vm_z)) $(cksum <"$_vm_p.$_vm_s.x" 2>/dev/null || printf '%s' '- -')"
		done
	fi
	_vm_say "$_vm_a"
}

# Encode FILE of SIZE bytes into FILE.x by the best means there is; _vm_k is the name of the encoding.
_vm_encode() {
	if command -v base64 >/dev/null; then
		if [ "$2" -gt 2048 ] && command -v gzip >/dev/null; then
			_vm_k=gzip
			gzip -1 -c <"$1" | base64 -w 720 >"$1.x"
		else
			_vm_k=base64
			base64 -w 720 <"$1" >"$1.x"
		fi
	elif command -v od >/dev/null; then
		_vm_k=hex
		od -A n -v -t x1 <"$1" >"$1.x"
	elif [ -z "$BASH_VERSION" ]; then
		_vm_k=none
		: >"$1.x"
	else
		_vm_k=hex
		(
			LC_ALL=C _vm_i=0
			while IFS= read -r -d '' -n 1 _vm_b || [ -n "$_vm_b" ]; do
				printf -v _vm_x '%d' "'$_vm_b"
				printf '%02x' "$((_vm_x & 255))"
				_vm_i=$((_vm_i + 1))
				[ "$((_vm_i % 64))" -ne 0 ] || printf '\n'
			done
			printf '\n'
		) <"$1" >"$1.x"
	fi
}

# ID STREAM FIRST LAST: lines of an encoded output, each with its number and length; then their count.
_vm_dump() {
	_vm_i=0
	while IFS= read -r _vm_l || [ -n "$_vm_l" ]; do
		_vm_i=$((_vm_i + 1))
		if [ "$_vm_i" -ge "$3" ] && [ "$_vm_i" -le "$4" ]; then
			printf '%s@%s:%s:%s.\n' "$_vm_t" "$_vm_i" "$_vm_l" "${#_vm_l}"
		fi
	done <"$_vm_d/$1.$2.x"
	_vm_say "$_vm_i"
}

# ID SIGNAL: signal the process group, or where the shell has no job control the process.
_vm_kill() {
	if [ "$_vm_j" = "$1" ]; then
		kill -s "$2" -- "-$_vm_w" 2>/dev/null || kill -s "$2" "$_vm_w" 2>/dev/null
	fi
	_vm_say ok
}

# ID...: remove their files; nobody waits for the answer.
_vm_drop() {
	for _vm_i in "$@"; do
		shift
		set -- "$@" "$_vm_d/$_vm_i".*
	done
	rm -f "$@" 2>/dev/null
}

# ID: have the shell of the next command wait for it, its keeper for its end, and the stand-in for what is typed next:
# who goes on from a guest that was kept here need not start them. The stand-in answers what it gets; where it cannot
# run, this does.
_vm_prepare() {
	if [ "$_vm_b" != "$1" ]; then
		_vm_b=$1 _vm_q=$_vm_d/$1
		# Once here, and not in each of those who go on from here.
		sync
		if [ -n "$BASH_VERSION" ] && mkfifo -m 600 "$_vm_q.c" "$_vm_q.w" && chmod 700 "$_vm_q.t" "$_vm_q.k" &&
			"$_vm_q.t" </dev/null; then
			# To read and to write: that waits for nobody.
			exec 9<>"$_vm_q.c"
			# What it reads before its script (bash(1)): who it is, and that the end of a script that never came is no end.
			# What is written before it has opened its script is lost. A level is taken from it where bash(1) has no fork to make.
			printf '%s\n' "SHLVL=$((SHLVL + 1))" 'unset BASH_ENV; trap "kill -KILL $$" EXIT; echo $$ >"${0%.c}.w"' >"$_vm_q.n"
			_vm_files "$1"
			set -m
			BASH_ENV=$_vm_q.n "$_vm_q.k" "$1" "$BASH" "$_vm_q.c" 3>&1 </dev/null >"$_vm_q.o" 2>"$_vm_q.e" \
				5<"$_vm_q.o" 6<"$_vm_q.e" 8>"$_vm_q.r" 9>&- &
			set +m
			_vm_w=$!
			disown "$_vm_w"
			read -r -t 10 _vm_x <>"$_vm_q.w"
			_vm_i=0
			until [ -e "/proc/$_vm_x/fd/255" ] || [ "$_vm_i" -eq 9999 ]; do
				_vm_i=$((_vm_i + 1))
			done
			if [ "$_vm_i" -ne 9999 ]; then
				"$_vm_q.t" <&0 7>/dev/urandom &
			fi
			# With the end of the stand-in comes the end of the script.
			exec 9>&-
			if [ "$_vm_i" -ne 9999 ] && wait "$!"; then
				return
			fi
		fi
	fi 2>/dev/null
	_vm_say ''
}

# SEED TIME: mix the seed into the kernel's randomness, and set the clock to TIME as date -s takes it.
_vm_wake() {
	if [ "$_vm_m" != "$2" ]; then
		_vm_m=$2
		printf '%s' "$1" >/dev/urandom
		# busybox takes whole seconds, and not every one has a link for each of its commands.
		date -s "$2" >/dev/null 2>&1 || date -s "${2%.*}" >/dev/null 2>&1
		_vm_r=$?
		if [ "$_vm_r" -eq 127 ]; then
			busybox date -s "${2%.*}" >/dev/null 2>&1
			_vm_r=$?
		fi
	fi
	_vm_say "$_vm_r"
}
