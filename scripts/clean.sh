#!/usr/bin/env bash
# Stops the clusters that a killed demo or test left under target/, then removes what was built.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
if [[ -d target ]]; then
  while IFS= read -r place; do
    scripts/cluster.sh destroy "${place%/where}"
  done < <(find target -maxdepth 4 -name where -type f)
fi
cargo clean
# The demo writes there too, wherever CARGO_TARGET_DIR points.
rm -rf target
