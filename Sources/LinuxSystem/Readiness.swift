// SPDX-License-Identifier: Apache-2.0
//
// Waiting for one of several descriptors.

import Glibc
package import SystemPackage

/// Waits until one of the descriptors can be read, or has been closed at its other end. C: `poll`.
///
/// - Parameters:
///   - descriptors: open descriptors.
///   - milliseconds: how long; -1 for ever.
/// - Returns: for each, whether it is so; for none if the time ran out.
/// - Throws: errno of the call.
package func waitForAny(of descriptors: [CInt], milliseconds: CInt = -1) throws(Errno) -> [Bool] {
    var entries = descriptors.map { pollfd(fd: $0, events: CShort(POLLIN), revents: 0) }
    try systemCall(onInterrupt: .retry) { unsafe poll(&entries, nfds_t(entries.count), milliseconds) }
    return entries.map { $0.revents != 0 }
}
