// SPDX-License-Identifier: Apache-2.0
//
// Memory that makes its user wait, as swapped-out memory does, for as long as a test wants.

import CConformance
import CKVMUser
import Glibc
import LinuxSystem
import SystemPackage

@testable import MMIOForwarding

/// A page that is not there until ``give(_:)``: a call that copies to or from it waits in the copy. C: `userfaultfd`.
struct SlowMemory: ~Copyable {
    private static let size = 4096
    private let page: MemoryMapping
    private let faults: OwnedDescriptor

    init() throws {
        let page = try MemoryMapping(anonymous: Self.size)
        let start = unsafe page.baseAddress
        let faults = try systemCall(onInterrupt: .retry) { unsafe cconformance_hold_back(start, Self.size) }
        self.page = page
        self.faults = OwnedDescriptor(adopting: faults)
    }

    /// Where it begins.
    var address: UInt { UInt(bitPattern: unsafe page.baseAddress) }

    /// Whether somebody waits for it.
    var isWaitedFor: Bool {
        var poll = pollfd(fd: faults.rawValue, events: Int16(POLLIN), revents: 0)
        return unsafe Glibc.poll(&poll, 1, 0) == 1
    }

    /// Lets whoever waits go on, with these bytes in the page and zeroes after them.
    func give(_ contents: [UInt8] = []) throws {
        var all = contents
        all += [UInt8](repeating: 0, count: Self.size - contents.count)
        try systemCall(onInterrupt: .retry) {
            unsafe cconformance_give(faults.rawValue, page.baseAddress, all, Self.size)
        }
    }

    /// What is in the page as requests, once it has been given.
    func requests(_ count: Int) -> [ForwardedRequest] {
        // SAFETY: the page has room for them, and no call writes to it any more.
        let first = unsafe page.baseAddress.assumingMemoryBound(to: kvm_user_request.self)
        return unsafe UnsafeBufferPointer(start: first, count: count).map { ForwardedRequest(raw: $0) }
    }
}
