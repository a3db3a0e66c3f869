#!/bin/sh
# Installs burgee from a release: a folder, or an address.
#
#   install.sh [install] [--from FOLDER|URL] [--version V] [agent] [hub] [cli]
#   install.sh uninstall [--purge [agent] [hub]]
#
#   agent, hub, cli      what to install; the agent where nothing is named. An
#                        upgrade (install again) keeps what is there
#   --from FOLDER|URL    where the release is; the folder of this file by default
#   --version V          which version; that of this file by default
#   --signers FILE       who may sign releases, as an allowed_signers file of SSH;
#                        the key in this file by default
#   --prefix FOLDER      below which to install (/usr/local)
#   --root FOLDER        installs into the root of an image; nothing is started
#   --no-start           enables the services, but does not start them
#   --allow-downgrade    takes a version that is older than what is installed
#   --purge              uninstall: settings and state, too; with parts, what they
#                        left when they were uninstalled before
#   --help
#
# Nothing is unpacked, and nothing runs, before its checksum is found in
# SHA256SUMS and the signature over that file is good.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused: not what was signed.
set -eu
umask 022
RELEASE_KEY=''
VERSION=''

say() { printf '%s\n' "$*"; }
fail() { # code, message, hint
  printf 'error: %s\n' "$2" >&2
  [ -z "${3:-}" ] || printf 'hint: %s\n' "$3" >&2
  exit "$1"
}

here=$(cd "$(dirname "$0")" && pwd)
command=install from=$here signers='' prefix=/usr/local root='' start=yes older='' purge='' parts=''
value() { [ "$2" -ge 2 ] || fail 2 "$1 wants a value" "$0 --help"; }
while [ $# -gt 0 ]; do
  case "$1" in
    install | uninstall) command=$1 ;;
    agent | hub | cli) parts="$parts $1" ;;
    --from) value "$1" $#; from=$2; shift ;;
    --version) value "$1" $#; VERSION=$2; shift ;;
    --signers) value "$1" $#; signers=$2; shift ;;
    --prefix) value "$1" $#; prefix=${2%/}; shift ;;
    --root) value "$1" $#; root=${2%/}; shift ;;
    --no-start) start='' ;;
    --allow-downgrade) older=yes ;;
    --purge) purge=yes ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) fail 2 "unknown word: $1" "$0 --help" ;;
  esac
  shift
done
case "$prefix" in /*) ;; *) fail 2 "--prefix $prefix is not absolute" ;; esac
[ -z "$root" ] || [ -d "$root" ] || fail 2 "--root $root is no folder"
# What is installed: the version, what of it, then a file a line.
record=$root$prefix/share/burgee/installed
WANTS=/etc/systemd/system/multi-user.target.wants
[ "$(id -u)" = 0 ] || fail 1 "this needs root" "sudo $0 …"

# systemd: of this machine, or of the image.
has_systemd() {
  if [ -n "$root" ]; then
    [ -e "$root/usr/lib/systemd/systemd" ] || [ -e "$root/lib/systemd/systemd" ]
  else
    [ -d /run/systemd/system ]
  fi
}
is_live() { [ -z "$root" ] && has_systemd; }

unit_of() {
  case "$1" in agent) echo burgee-agent.service ;; hub) echo burgee-hub.service ;; esac
}

remove_listed() { # a record, and one whose files stay
  sed 1,2d "$1" | while IFS= read -r file; do
    case "$file" in
      /*) if [ -z "${2:-}" ] || ! sed 1,2d "$2" | grep -qxF -- "$file"; then rm -f "$root$file"; fi ;;
    esac
  done
}

# A service that nobody can be asked to stop.
runs_unheld() { # part
  if [ -n "$root" ] || has_systemd; then return 1; fi
  for exe in /proc/[0-9]*/exe; do
    case "$1 $(readlink "$exe" 2>/dev/null)" in
      "$1 $prefix/bin/burgee-$1"* | "agent /var/lib/burgee/agent/"*) return 0 ;;
    esac
  done
  return 1
}

if [ "$command" = uninstall ]; then
  had=''
  if [ -e "$record" ]; then
    had=$(sed -n 2p "$record")
  elif [ -z "$purge" ] || [ -z "$parts" ]; then
    fail 1 "nothing is installed below $root$prefix" "--prefix, or the package manager where it came as a package; uninstall --purge agent takes what an uninstalled agent left"
  fi
  # Who names a part may mean that one alone.
  for part in ${parts:+$had}; do
    case " $parts " in
      *" $part "*) ;;
      *) fail 2 "uninstall takes all that was installed: $had" "name no part, or all of them" ;;
    esac
  done
  for part in $had $parts; do
    if runs_unheld "$part"; then fail 1 "burgee-$part runs" "have your init stop it first"; fi
    if [ -n "$purge" ] && [ -e "$root/usr/bin/burgee-$part" ]; then
      fail 1 "burgee-$part is installed as a package ($root/usr/bin/burgee-$part): its settings and state are left alone" "uninstall without --purge, or purge the package"
    fi
  done
  if [ -e "$record" ]; then
    packaged=''
    for part in $had; do
      unit=$(unit_of "$part")
      [ -n "$unit" ] || continue
      if [ -e "$root/usr/bin/burgee-$part" ]; then
        # A package is there, too: its unit was hidden by the one that goes.
        packaged="$packaged $unit"
      elif is_live; then
        [ "$part" != hub ] || systemctl disable --now burgee-hub.socket >/dev/null 2>&1 || :
        systemctl disable --now "$unit" >/dev/null 2>&1 || :
      else
        rm -f "$root$WANTS/$unit"
      fi
    done
    version=$(sed -n 1p "$record")
    remove_listed "$record"
    rm -f "$record"
    rmdir "$root$prefix/share/burgee" 2>/dev/null || :
    if is_live; then systemctl daemon-reload || :; fi
    say "burgee $version is uninstalled; what it made run keeps running"
    for unit in $packaged; do
      if [ -L "$root$WANTS/$unit" ]; then
        ln -sfn "/usr/lib/systemd/system/$unit" "$root$WANTS/$unit"
        if is_live; then
          systemctl daemon-reload
          systemctl restart "$unit" || fail 1 "the package's $unit does not start" "journalctl -u $unit"
        fi
      fi
      say "the package's $unit goes on"
    done
  fi
  if [ -z "$purge" ]; then
    say "settings and state are kept (/etc/burgee, /var/lib/burgee…): uninstall --purge ${had:-agent} takes them, too"
    exit 0
  fi
  for part in $had $parts; do
    case "$part" in
      agent)
        # Files that containers mount lie there, too.
        if [ -d "$root/var/lib/burgee/apps" ]; then say "containers with files of the fleet repository will not start again: those files are gone"; fi
        rm -rf "$root/var/lib/burgee" "$root/etc/burgee/agent.d"
        for file in agent.toml allowed_signers revoked_keys; do rm -f "$root/etc/burgee/$file"; done ;;
      hub)
        rm -rf "$root/var/lib/burgee-hub"
        rm -f "$root/etc/burgee/hub.toml" ;;
    esac
  done
  rmdir "$root/etc/burgee" 2>/dev/null || :
  say "settings and state are gone"
  exit 0
fi

[ -z "$purge" ] || fail 2 "--purge goes with uninstall" "$0 --help"
case "$VERSION" in
  '') fail 2 "which version?" "this file is not from a release: say --version" ;;
  *[!0-9.]*) fail 2 "$VERSION is no version" "digits and dots, such as 1.2.0" ;;
esac
machine=$(uname -m)
# An image may be another machine's: its programs say so, in the ELF header.
if [ -n "$root" ]; then
  for program in usr/lib/systemd/systemd lib/systemd/systemd usr/bin/dash usr/bin/env bin/busybox; do
    if [ -L "$root/$program" ] || [ ! -f "$root/$program" ]; then continue; fi
    case "$(od -An -tx1 -N20 "$root/$program" | tr -d ' \n')" in
      7f454c46*3e00) machine=x86_64 ;;
      7f454c46*b700) machine=aarch64 ;;
      7f454c46*2800) machine=armv7 ;;
      7f454c46*f300) machine=riscv64 ;;
      *) continue ;;
    esac
    break
  done
fi
[ -z "${BURGEE_MACHINE:-}" ] || machine=$BURGEE_MACHINE
case "$machine" in
  x86_64 | amd64) arch=x86_64 ;;
  aarch64 | arm64) arch=aarch64 ;;
  armv7* | armv8l) arch=armv7 ;;
  riscv64) arch=riscv64 ;;
  *) fail 1 "there is no burgee for $machine" "x86_64, aarch64, armv7 with hardware floating point, riscv64; BURGEE_MACHINE for an image of another machine" ;;
esac

# A package's files are its manager's.
for part in ${parts:-agent}; do
  case "$part" in cli) program=burgee ;; *) program=burgee-$part ;; esac
  if [ "$prefix" = /usr ]; then fail 2 "/usr is the package manager's" "another --prefix"; fi
  if [ -e "$root/usr/bin/$program" ]; then
    fail 1 "$program is installed as a package ($root/usr/bin/$program)" "upgrade it with the package manager, or remove it first"
  fi
done

installed='' had=''
if [ -e "$record" ]; then installed=$(sed -n 1p "$record"); had=$(sed -n 2p "$record"); fi
# Whether $1 is older than $2, number by number.
is_older() {
  awk -v a="$1" -v b="$2" 'BEGIN {
    n = split(a, x, "."); m = split(b, y, ".")
    for (i = 1; i <= (n > m ? n : m); i++) { if (x[i] + 0 != y[i] + 0) exit !(x[i] + 0 < y[i] + 0) }
    exit 1 }'
}
if [ -n "$installed" ] && [ -z "$older" ] && is_older "$VERSION" "$installed"; then
  fail 3 "$VERSION is older than what is installed ($installed)" "--allow-downgrade, if that is what you want"
fi
for part in $had; do case " $parts " in *" $part "*) ;; *) parts="$parts $part" ;; esac; done
parts=${parts:-agent}
parts=${parts# }

for tool in ssh-keygen:openssh-client sha256sum:coreutils tar:tar gzip:gzip; do
  command -v "${tool%%:*}" >/dev/null || fail 1 "${tool%%:*} is missing: without it nothing can be verified or unpacked" "install ${tool##*:}"
done
# Without the words that verify, a good release would look like a forged one.
case "$(ssh-keygen -Y find-principals 2>&1 || :)" in
  *find-principals*) ;;
  *) fail 1 "this ssh-keygen can't verify signatures: OpenSSH 8.2 or newer is needed" "upgrade it; or install into this machine's disk from another one (--root)" ;;
esac
work=$(mktemp -d "${TMPDIR:-/tmp}/burgee-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# Everything is copied first, so that what is verified is what is installed.
get() { # name; 1 if it is not there
  case "$from" in
    https://* | http://*)
      if command -v curl >/dev/null; then
        curl -fsSL --retry 3 -o "$work/$1" "${from%/}/$1"
      elif command -v wget >/dev/null; then
        wget -q -O "$work/$1" "${from%/}/$1"
      else
        fail 1 "neither curl nor wget is here" "download the release on another machine, and use --from FOLDER"
      fi ;;
    *) [ -f "$from/$1" ] && cp "$from/$1" "$work/$1" ;;
  esac
}

release=burgee-$VERSION-$arch
get SHA256SUMS || fail 3 "there is no SHA256SUMS in $from" "--from names the folder or address of a release"
get SHA256SUMS.sig || fail 3 "SHA256SUMS in $from is not signed (SHA256SUMS.sig is missing)" "a release has both; nothing was installed"
if [ -n "$signers" ]; then
  [ -r "$signers" ] || fail 2 "cannot read $signers" "--signers names an allowed_signers file"
  cp "$signers" "$work/signers"
elif [ -n "$RELEASE_KEY" ]; then
  printf 'release namespaces="burgee-release" %s\n' "$RELEASE_KEY" >"$work/signers"
else
  fail 2 "who may sign releases?" "this file is not from a signed release: say --signers FILE"
fi
# The principal is whoever the file says that key is; that the key is there, for
# releases, is what counts. A key may stand there for other things, too.
ssh-keygen -Y find-principals -s "$work/SHA256SUMS.sig" -f "$work/signers" >/dev/null 2>&1 ||
  fail 3 "SHA256SUMS is not signed by a key that may sign releases" "nothing was installed; get the release again from where you trust, or correct --signers"
# ssh-keygen names the first line with that key alone.
awk '!/^[ \t]*(#|$)/ { n = split($1, names, ","); for (i = 1; i <= n; i++) print names[i] }' "$work/signers" >"$work/principals"
who=''
while IFS= read -r name; do
  if ssh-keygen -q -Y verify -f "$work/signers" -I "$name" -n burgee-release -s "$work/SHA256SUMS.sig" <"$work/SHA256SUMS" >/dev/null 2>&1; then
    who=$name
    break
  fi
done <"$work/principals"
[ -n "$who" ] || fail 3 "the signature over SHA256SUMS is wrong" "the file was changed, or the key may not sign for burgee-release; nothing was installed"
want=$(awk -v file="$release.tar.gz" '$2 == file { print $1 }' "$work/SHA256SUMS")
case "$want" in
  '') fail 3 "the signed SHA256SUMS does not name $release.tar.gz" "$(awk '/\.tar\.gz$/ { printf "%s ", $2 }' "$work/SHA256SUMS")are what it names" ;;
  *[!0-9a-f]*) fail 3 "the signed SHA256SUMS names $release.tar.gz twice, or without a checksum" ;;
esac
get "$release.tar.gz" || fail 1 "there is no $release.tar.gz in $from"
have=$(sha256sum "$work/$release.tar.gz" | cut -d' ' -f1)
[ "$have" = "$want" ] || fail 3 "$release.tar.gz is not what was signed: SHA-256 $have, expected $want" "nothing was installed; get it again"
say "burgee $VERSION for $arch is signed by $who"

gzip -dc "$work/$release.tar.gz" | tar -x -C "$work" --no-same-owner -f -
tree=$work/$release
printf '%s\n%s\n' "$VERSION" "$parts" >"$work/installed"
place() { # mode, file of the release, to; lists it
  mkdir -p "$root${3%/*}"
  # Renamed into place: a program that runs is not written to.
  cp "$2" "$root$3.burgee-new"
  chmod "$1" "$root$3.burgee-new"
  # On the disk before it has its name: power may fail at any time.
  sync "$root$3.burgee-new" 2>/dev/null || sync
  mv -f "$root$3.burgee-new" "$root$3"
  printf '%s\n' "$3" >>"$work/installed"
}
unit() { # name
  sed "s|/usr/bin/burgee|$prefix/bin/burgee|g" "$tree/systemd/$1" >"$work/unit"
  place 644 "$work/unit" "/etc/systemd/system/$1"
}
settings() { # file; only where there is none
  mkdir -p "$root/etc/burgee"
  [ -e "$root/etc/burgee/$1" ] || { cp "$tree/$1" "$root/etc/burgee/$1"; say "wrote /etc/burgee/$1"; }
}

units=''
for part in $parts; do
  case "$part" in
    agent)
      place 755 "$tree/bin/burgee-agent" "$prefix/bin/burgee-agent"
      place 644 "$tree/agent.toml" "$prefix/share/doc/burgee-agent/agent.toml"
      mkdir -p "$root/etc/burgee/agent.d"
      if has_systemd; then
        unit burgee-agent.service
        mkdir -p "$root/etc/systemd/system-generators"
        ln -sfn "$prefix/bin/burgee-agent" "$root/etc/systemd/system-generators/burgee-agent-generator"
        echo /etc/systemd/system-generators/burgee-agent-generator >>"$work/installed"
      fi ;;
    hub)
      place 755 "$tree/bin/burgee-hub" "$prefix/bin/burgee-hub"
      settings hub.toml
      if has_systemd; then
        unit burgee-hub.service
        unit burgee-hub.socket
        place 644 "$tree/systemd/sysusers.d/burgee-hub.conf" /etc/sysusers.d/burgee-hub.conf
        place 644 "$tree/systemd/tmpfiles.d/burgee-hub.conf" /etc/tmpfiles.d/burgee-hub.conf
        if is_live; then systemd-sysusers burgee-hub.conf; fi
      fi ;;
    cli)
      place 755 "$tree/bin/burgee" "$prefix/bin/burgee"
      place 644 "$tree/completion/bash" "$prefix/share/bash-completion/completions/burgee" ;;
  esac
  units="$units $(unit_of "$part")"
done
starts=''
if is_live; then
  systemctl daemon-reload
  for unit in $units; do
    # Installed before, and disabled by its owner: it stays so.
    if [ -e "$record" ] && sed 1,2d "$record" | grep -qxF "/etc/systemd/system/$unit" && ! systemctl --quiet is-enabled "$unit"; then
      say "$unit is disabled, and stays so"
      continue
    fi
    # Before the record says that it is installed: who stops here begins anew.
    systemctl --quiet enable "$unit"
    starts="$starts $unit"
  done
fi
# What the version before had and this one has not.
if [ -e "$record" ]; then remove_listed "$record" "$work/installed"; fi
mkdir -p "${record%/*}"
cp "$work/installed" "$record.new"
mv -f "$record.new" "$record"
sync

if is_live; then
  failed=''
  for unit in ${start:+$starts}; do systemctl restart "$unit" || failed="$failed $unit"; done
  [ -z "$failed" ] || fail 1 "burgee $VERSION is installed, but does not start:$failed" "journalctl -u ${failed##* }"
elif has_systemd; then
  for unit in $units; do
    # In no record: what systemctl says of it is what counts from then on.
    mkdir -p "$root$WANTS"
    ln -sfn "../$unit" "$root$WANTS/$unit"
  done
elif [ -n "$units" ]; then
  say "there is no systemd here: have your init start, and start again when it ends:"
  case " $parts " in *" agent "*) say "  $prefix/bin/burgee-agent run" ;; esac
  case " $parts " in *" hub "*) say "  $prefix/bin/burgee-hub --config /etc/burgee/hub.toml serve" ;; esac
fi
say "burgee $VERSION is installed ($parts) below $prefix"
case " $parts " in
  *" agent "*)
    if [ ! -e "$root/etc/burgee/agent.toml" ] && [ -z "$(ls "$root/etc/burgee/agent.d" 2>/dev/null)" ]; then
      say "next: /etc/burgee/agent.toml and /etc/burgee/allowed_signers; $prefix/share/doc/burgee-agent/agent.toml is an example"
    fi ;;
esac
