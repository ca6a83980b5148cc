// SPDX-License-Identifier: Apache-2.0
//
// A run that does not go on.

import Glibc
import LinuxSystem
import Synchronization

/// Ends the process when a run has not gone on for too long.
public final class Watchdog: Sendable {
    private let stopped = Atomic(false)

    /// Begins to watch.
    ///
    /// - Parameters:
    ///   - progress: what has to go on.
    ///   - limit: seconds that one action may take.
    ///   - report: says so; the process then ends with status 3.
    public init(_ progress: FuzzProgress, limit: Int, _ report: @escaping @Sendable () -> Void) throws {
        try NativeThread { [self] in
            var (last, idle) = (-1, 0)
            while !stopped.load(ordering: .relaxed) {
                sleep(1)
                let actions = progress.actions
                idle = actions == last ? idle + 1 : 0
                last = actions
                if idle >= limit {
                    report()
                    _exit(3)
                }
            }
        }.detach()
    }

    /// Watches no more.
    public func stop() {
        stopped.store(true, ordering: .relaxed)
    }
}
