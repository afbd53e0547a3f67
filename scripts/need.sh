#!/usr/bin/env bash
# Sourced by the other scripts: what they need from the system, installed when it is missing.
set -euo pipefail

# need COMMAND:PACKAGE...: installs the Debian packages whose command is not there.
need() {
  local item missing=()
  for item in "$@"; do
    # Programs, not functions of that name.
    type -P "${item%%:*}" >/dev/null || missing+=("${item##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id --user)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "${0##*/}: missing: ${missing[*]}: install them and run this again" >&2
    return 1
  fi
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install --yes -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_cargo: a cargo as new as Cargo.toml asks for; rustup brings one where there is none.
need_cargo() {
  local want have
  want=$(sed --quiet 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  # shellcheck source=/dev/null
  [ ! -r "${CARGO_HOME:-$HOME/.cargo}/env" ] || . "${CARGO_HOME:-$HOME/.cargo}/env"
  if ! command -v cargo >/dev/null; then
    need curl:curl update-ca-certificates:ca-certificates
    echo "installing Rust by rustup (https://rustup.rs)"
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
      sh -s -- -y --quiet --profile minimal --component rustfmt --component clippy
    # shellcheck source=/dev/null
    . "${CARGO_HOME:-$HOME/.cargo}/env"
  fi
  have=$(cargo --version | cut --delimiter=' ' --fields=2)
  if [ "$(printf '%s\n' "$want" "$have" | sort --version-sort | head --lines=1)" != "$want" ]; then
    echo "${0##*/}: cargo is $have, plyfs needs $want: try rustup update stable" >&2
    return 1
  fi
}
