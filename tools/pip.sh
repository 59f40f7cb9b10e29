# Sourced by the programs here that run pip.

# Ctrl-C ends pip as well, with the status of a failure. bash runs the trap before it looks at that status.
trap 'echo "virtfs: interrupted" >&2; exit 130' INT

# Without a default route, a retry cannot help, and pip's five take 10 s for each package that it looks for. An index on
# this machine or its network needs none.
if [ -z "${PIP_RETRIES:-}" ] && command -v ip >/dev/null && [ -z "$(ip route show default; ip -6 route show default)" ]
then
    export PIP_RETRIES=0
fi

fetching() { # COMMAND ...: runs pip, and explains its failure
    "$@" || {
        echo "virtfs: pip has failed. Without a network, give it a directory of wheels (doc/install.md): PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR" >&2
        exit 1
    }
}
