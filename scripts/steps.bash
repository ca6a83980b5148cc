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

# count_last_line LOG: adds what another script of ours has counted, "3 passed, 0 failed".
count_last_line() {
    local good bad
    if read -r good _ bad _ < <(tail -n 1 "$1") && [[ "$good $bad" =~ ^[0-9]+\ [0-9]+$ ]]; then
        passed=$((passed + good))
        failed=$((failed + bad))
    else
        fail_test "$1 ends early"
    fi
}

# swift_results LOG passed|failed: how many Swift tests did so far.
swift_results() {
    grep -E "^[^ ]+ Test [^ ].* $2 after [0-9.]+ seconds" "$1" | grep -cvE '^[^ ]+ Test (run with|case passing) '
}

# count_swift_tests NAME LOG STATUS: counts each Swift test of a run that ended with that status. One that ends badly without
# naming a test, or that runs none, is one failure.
count_swift_tests() {
    local name=$1 log=$2 status=$3 good bad
    good=$(swift_results "$log" passed)
    bad=$(swift_results "$log" failed)
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '%s: %d passed, %d failed\n' "$name" "$good" "$bad"
    # The lab's status for a kernel that reported something, whatever the tests say.
    if ((status == 120)); then
        fail_test "$name: the kernel reported something; see its console"
    elif ((status != 0 && bad == 0)); then
        fail_test "$name: ended with status $status, and no test says why"
    elif ((good + bad == 0)); then
        fail_test "$name: no test ran"
    fi
}

# swift_tests NAME COMMAND...: runs Swift tests and counts each.
swift_tests() {
    local name=$1 log status=0
    # shellcheck disable=SC2154
    log=$logs/$(tr -c 'a-zA-Z0-9.\n' '-' <<<"$1").log
    shift
    "$@" 2>&1 | tee "$log" || status=$?
    count_swift_tests "$name" "$log" "$status"
}

# finish: the last line counts them all.
finish() {
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}
