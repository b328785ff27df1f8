# shellcheck shell=bash
# Installs what the build needs and the machine lacks. Sourced by the scripts in tools/.

# Hundreds of tests that begin at once take the processor from those that have a peer with a clock of its own.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=4

# Installs packages through apt when a check says that they are missing.
#   require_packages 'CHECK' PACKAGE [...]   CHECK is a command that succeeds when nothing is missing
require_packages() {
    local check=$1
    shift
    eval "$check" > /dev/null 2>&1 && return
    if ! command -v apt-get > /dev/null; then
        echo "$0: missing: $*. Install the equivalents for this system, then run this again." >&2
        exit 1
    fi
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "Installing $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "$@" > /dev/null
}

require_build() {
    if ! command -v swift > /dev/null; then
        echo "$0: there is no 'swift' here: install Swift 6.2 or later from https://swift.org/install" >&2
        exit 1
    fi
    require_packages 'command -v pkg-config' pkg-config
    require_packages 'pkg-config --exists lmdb' liblmdb-dev
    require_packages 'pkg-config --exists libzstd' libzstd-dev
    require_packages 'pkg-config --exists zlib' zlib1g-dev
    # Tests of TLS make their certificates.
    require_packages 'command -v openssl' openssl
    # Tests unpack stores of earlier builds.
    require_packages 'command -v tar && command -v xz' tar xz-utils
}

# What tools/torture attacks with. What can't be had here is not asked for: its attacks are skipped, and say so.
require_torture() {
    [ "$(id -u)" -eq 0 ] || return 0
    command -v apt-get > /dev/null || return 0
    require_packages 'command -v cc' gcc libc6-dev
    require_packages 'command -v mkfs.ext4 && command -v mkfs.xfs && command -v losetup' e2fsprogs xfsprogs mount
    require_packages 'command -v nbdkit && command -v nbdfuse' nbdkit libnbd-bin
    require_packages 'command -v strace' strace
    require_packages 'command -v python3' python3
}

# Python programs that tests compare with and run against, in .build-tools/: Amazon's own client, two servers that speak
# the SQS protocol, and the public vectors of Signature Version 4. Nothing of them is part of Stalk. Where PyPI can't be
# reached, the tests that need them are skipped, and say so.
require_sqs_tools() {
    local tools=.build-tools botocore=1.43.106
    if ! command -v python3 > /dev/null; then
        echo "SKIPPED: no python3 here, so no test against Amazon's client and other SQS servers"
        return 0
    fi
    mkdir -p "$tools"
    # ministack pins botocore, so each server has a place of its own.
    require_python "$tools/sqs" "ministack==1.5.33" "boto3==$botocore"
    command -v moto_server > /dev/null || require_python "$tools/moto" "moto[sqs,server]==5.2.1"
    if [ ! -d "$tools/aws4_testsuite" ]; then
        echo "Fetching the vectors of Signature Version 4"
        if python3 -m pip download --quiet --no-deps --no-binary :all: \
            --dest "$tools/download" "botocore==$botocore" > /dev/null 2>&1; then
            tar -xzf "$tools/download/botocore-$botocore.tar.gz" -C "$tools" --strip-components=4 \
                "botocore-$botocore/tests/unit/auth/aws4_testsuite"
        else
            echo "SKIPPED: PyPI can't be reached, so no vectors of Signature Version 4"
        fi
    fi
}

# The official Python client of NSQ, in .build-tools/: it talks to the tests' own nsqd, so that this one stays honest.
require_nsq_tools() {
    if ! command -v python3 > /dev/null; then
        echo "SKIPPED: no python3 here, so no test against NSQ's own client"
        return 0
    fi
    require_python .build-tools/nsq "pynsq==0.9.1"
}

# A virtual environment with packages of PyPI.
#   require_python DIRECTORY PACKAGE [...]
require_python() {
    local directory=$1
    shift
    [ -e "$directory/complete" ] && return 0
    echo "Installing $* into $directory"
    if python3 -m venv "$directory" && "$directory/bin/pip" install --quiet "$@"; then
        touch "$directory/complete"
    else
        echo "SKIPPED: $* could not be installed, so the tests that need it are skipped"
    fi
}

# What the tests of the page look at it with. Where it can't be had, they are skipped, and say so.
require_browser() {
    [ "$(id -u)" -eq 0 ] || return 0
    command -v apt-get > /dev/null || return 0
    require_packages 'command -v chromium && command -v python3' chromium python3
}
