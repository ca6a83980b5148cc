# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Jobs: what runs side by side, each in a session of its own, which a signal to the script ends. To be sourced by a script
# that sets $logs, a directory, and has two functions: report NAME STATUS, when a job has ended, and progress, every minute.

declare -A jobs=() # process by name
ticker=

# start NAME COMMAND...: runs a command as a job, its output in the log of that name.
start() {
    local name=$1
    shift
    # shellcheck disable=SC2154
    # Bash has background commands ignore these two signals, and tests would inherit that.
    setsid env --default-signal=INT,QUIT "$@" >"$logs/$name.log" 2>&1 </dev/null &
    jobs[$name]=$!
}

# The lab ends its VM at SIGTERM; nothing here takes longer than a few seconds to end.
end_jobs() {
    local process
    trap '' INT TERM HUP
    for process in "${jobs[@]}"; do
        kill -TERM -- "-$process" 2>/dev/null
    done
    [[ -z $ticker ]] || kill "$ticker"
    wait
}
trap end_jobs EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# finish_jobs: reports each job when it ends, and every minute how far the others are.
finish_jobs() {
    local name ended status
    while ((${#jobs[@]} > 0)); do
        if [[ -z $ticker ]]; then
            sleep 60 &
            ticker=$!
        fi
        status=0
        wait -n -p ended "$ticker" "${jobs[@]}" || status=$?
        if [[ $ended == "$ticker" ]]; then
            ticker=
            progress
            continue
        fi
        for name in "${!jobs[@]}"; do
            [[ ${jobs[$name]} == "$ended" ]] || continue
            unset "jobs[$name]"
            report "$name" "$status"
        done
    done
}
