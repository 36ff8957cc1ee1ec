#!/bin/sh
# A Chromium for the browser tests: the machine's own, or Debian's where we may install it. Without one the tests say the remedy.
set -eu
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && [ "$(. /etc/os-release && echo "${ID:-}")" = debian ]; then
    echo "Installing Chromium for the browser tests (apt-get install chromium)"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if { apt-get -q update && apt-get -q -y install --no-install-recommends chromium fonts-dejavu-core fonts-wqy-microhei; } >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    rm -f "$log"
fi
echo "There is no Chromium; the browser tests are left out. Install one: apt-get install chromium"
