#!/usr/bin/env bash
exec "$SRC/anyio_net/fuzz/build.sh"
