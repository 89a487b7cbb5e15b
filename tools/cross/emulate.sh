#!/usr/bin/env bash
# Makes a program that was compiled for another processor run here, by an emulator:
#
#   emulate.sh EMULATOR SYSROOT PROGRAM   PROGRAM becomes a script that runs PROGRAM.elf
#
# The script hands on arguments and exit status, and names itself to the program, which else knows no way to
# start itself anew: the kernel cannot run PROGRAM.elf.
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
