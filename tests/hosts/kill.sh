# Run in a cell: a boot is begun and killed with SIGKILL when QEMU runs; a second later nothing of it may be left.
qemu() { grep -lazs 'memory-backend-file,id=ram0' /proc/[0-9]*/cmdline; }
.venv/bin/vmtests boot reference --results results/killed >/dev/null 2>&1 &
for _ in $(seq 1800); do qemu >/dev/null && break; sleep 0.1; done
sleep 2
qemu >/dev/null || { echo 'hosts: no QEMU was started'; exit 1; }
kill -9 $!
sleep 1
if qemu; then echo 'hosts: QEMU outlived its run'; exit 1; fi
echo 'hosts: a second after kill -9 no QEMU was left'
