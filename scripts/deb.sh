#!/usr/bin/env bash
# A Debian package for the PostgreSQL of PG_CONFIG: target/deb/postgresql-N-partition-router_VERSION_ARCH.deb
# DEBUG=yes packages a debug build, to try the package in a minute.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

require_postgres
use_configured_pgrx
cd "$ROOT"

version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)
package=postgresql-$PG_MAJOR-partition-router
stage=target/deb/$package
say "packaging $package $version"

rm -rf "$stage"
profile=()
[[ -z ${DEBUG:-} ]] || profile=(--debug)
cargo pgrx package "${profile[@]}" --pg-config "$PG_CONFIG" --no-default-features --features "pg$PG_MAJOR" --out-dir "$stage"
# Debian has each major version's files under these names, wherever this PostgreSQL has its own.
built_lib=$stage$("$PG_CONFIG" --pkglibdir)
built_share=$stage$("$PG_CONFIG" --sharedir)
root=$stage/root
install -Dm 0644 -t "$root/usr/lib/postgresql/$PG_MAJOR/lib" "$built_lib/partition_router.so"
install -Dm 0644 -t "$root/usr/share/postgresql/$PG_MAJOR/extension" "$built_share"/extension/partition_router*
install -Dm 0644 LICENSE "$root/usr/share/doc/$package/copyright"
install -Dm 0644 -t "$root/usr/share/doc/$package" README.md CONTRIBUTING.md Dockerfile
# The pages link to one another.
cp -r docs examples "$root/usr/share/doc/$package"
gzip -9n <CHANGELOG.md >"$root/usr/share/doc/$package/changelog.gz"
strip --strip-unneeded "$root/usr/lib/postgresql/$PG_MAJOR/lib/partition_router.so"

# What is linked here wants the C library of this machine or a later one.
libc=$(dpkg-query -W -f '${Version}' libc6 | sed 's/-.*//')
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: $package
Version: $version-1
Architecture: $(dpkg --print-architecture)
Maintainer: partition_router developers <partition_router@localhost>
Installed-Size: $(du -sk "$root" | cut -f 1)
Depends: postgresql-$PG_MAJOR, libc6 (>= $libc), libgcc-s1
Suggests: postgresql-$PG_MAJOR-cron
Section: database
Priority: optional
Description: turns a live table into a partitioned one, in PostgreSQL $PG_MAJOR
 An extension that copies a table to a partitioned twin while applications
 write, keeps both sides in step in the same transaction, proves that they are
 equal, routes reads tenant by tenant, swaps the names, and maintains the
 partitions.
CONTROL
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
dpkg-deb --build --root-owner-group -Zgzip "$root" target/deb >/dev/null
rm -rf "$stage"
note "$(ls target/deb/"${package}_$version-1"_*.deb)"
