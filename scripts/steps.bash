# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Tests in steps, counted: to be sourced by a script that sets $logs, a directory, and ends with finish.

passed=0
failed=0

heading() {
    printf '\n== %s (after %d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

pass() {
    passed=$((passed + 1))
    printf 'passed: %s\n' "$1"
}

fail_test() {
    failed=$((failed + 1))
    printf 'FAILED: %s\n' "$1"
}

# step NAME COMMAND...: one test, which passes if the command does.
step() {
    local name=$1
    shift
    if "$@"; then
        pass "$name"
    else
        fail_test "$name"
        return 1
    fi
}

# swift_tests NAME COMMAND...: runs Swift tests and counts each. A run that ends badly without naming a test, or that
# runs none, is one failure.
swift_tests() {
    local name=$1 log status=0 good bad
    # shellcheck disable=SC2154
    log=$logs/$(tr -c 'a-zA-Z0-9.\n' '-' <<<"$1").log
    shift
    "$@" 2>&1 | tee "$log" || status=$?
    good=$(grep -cE '^[^ ]+ Test [^ ].* passed after [0-9.]+ seconds' <(grep -vE '^[^ ]+ Test (run with|case passing) ' "$log"))
    bad=$(grep -cE '^[^ ]+ Test [^ ].* failed after [0-9.]+ seconds' <(grep -vE '^[^ ]+ Test (run with|case passing) ' "$log"))
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '%s: %d passed, %d failed\n' "$name" "$good" "$bad"
    if ((status != 0 && bad == 0)); then
        fail_test "$name: ended with status $status, and no test says why"
    elif ((good + bad == 0)); then
        fail_test "$name: no test ran"
    fi
}

# finish: the last line counts them all.
finish() {
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}
