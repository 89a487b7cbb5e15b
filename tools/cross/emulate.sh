#!/usr/bin/env bash
# Makes a program compiled for another processor run here, in an emulator:
#
#   emulate.sh EMULATOR SYSROOT PROGRAM   PROGRAM becomes a script that runs PROGRAM.elf
#
# The script passes on arguments and exit status, and its own name to the program, which otherwise could not
# start itself again: the kernel cannot run PROGRAM.elf.
set -euo pipefail

emulator=$1
sysroot=$2
program=$3
mv "$program" "$program.elf"
cat >"$program" <<END
#!/bin/sh
ANYIO_NET_TEST_EMULATED=$PWD/$program exec $emulator -L $sysroot $PWD/$program.elf "\$@"
END
chmod +x "$program"
