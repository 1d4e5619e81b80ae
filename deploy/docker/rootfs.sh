#!/bin/sh
# Puts a program and what it needs at run time into a folder, which is then the root of a container:
#
#   deploy/docker/rootfs.sh target/dist/collector rootfs
#
# The files belong to the user who runs this (root, in a container's build) and nobody else may write them. The
# program runs as the user 65532, writes nothing, and works with a read-only root.
set -eu
[ $# = 2 ] || { echo "usage: rootfs.sh BINARY DIR" >&2; exit 2; }
binary=$1
root=$2
certificates=/etc/ssl/certs/ca-certificates.crt
[ -r "$certificates" ] || { echo "no $certificates: apt-get install ca-certificates" >&2; exit 1; }
umask 022

install -D -m 755 "$binary" "$root/usr/bin/collector"
install -D -m 644 "$certificates" "$root$certificates"

# Libraries and the loader, under the names by which the program asks for them. glibc resolves names by itself: it has
# had its modules `files` and `dns` inside since 2.34.
libraries=$(ldd "$binary" | sed -n 's/^.*=> *\(\/[^ ]*\) .*$/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*$/\1/p')
[ -n "$libraries" ] || { echo "$binary: ldd names no library" >&2; exit 1; }
for library in $libraries; do
    install -D -m 755 "$library" "$root$library"
    # Their licences. dpkg knows a file of /lib by either of its names.
    package=$(dpkg -S "$library" 2>/dev/null || dpkg -S "/usr$library" 2>/dev/null) || continue
    package=${package%%:*}
    if [ -r "/usr/share/doc/$package/copyright" ]; then
        install -D -m 644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
    fi
done

echo 'collector:x:65532:65532::/:/nonexistent' > "$root/etc/passwd"
echo 'collector:x:65532:' > "$root/etc/group"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
