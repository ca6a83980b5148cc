// SPDX-License-Identifier: Apache-2.0
//
// The kernel's fault injection: one allocation or user copy of this thread fails, as if memory had run out.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

/// Faults of the thread that made this. C: `/proc/thread-self/fail-nth`, on a kernel with CONFIG_FAULT_INJECTION.
final class FaultInjection {
    private let failNth: OwnedDescriptor

    /// Has every allocation, also one that could wait for memory, and every user copy count.
    init() throws {
        for (capability, setting) in [
            ("failslab", "ignore-gfp-wait"), ("fail_page_alloc", "ignore-gfp-wait"),
            ("fail_page_alloc", "ignore-gfp-highmem"),
        ] {
            try Self.set(capability, setting, to: "N")
        }
        try Self.set("fail_page_alloc", "min-order", to: "0")
        // Each fault's stack would drown the console.
        for capability in ["failslab", "fail_page_alloc", "fail_usercopy"] {
            try Self.set(capability, "verbose", to: "0")
        }
        failNth = try OwnedDescriptor.open("/proc/thread-self/fail-nth", .readWrite)
    }

    private static func set(_ capability: String, _ setting: String, to value: String) throws {
        let file = try FileDescriptor.open(FilePath("/sys/kernel/debug/\(capability)/\(setting)"), .writeOnly)
        defer { try? file.close() }
        _ = try file.writeAll(value.utf8)
    }

    /// What came of a call.
    struct Attempt {
        /// Its errno, nil if it succeeded.
        let error: Errno?
        /// Whether the fault happened in it; a call may get by without what it was refused.
        let injected: Bool
    }

    /// What the kernel says when memory or a user's page is not to be had, and nothing else.
    private static let clean: [Errno] = [.noMemory, .badAddress, .tooManyOpenFilesInSystem]

    /// More faults than any call here has places for them.
    private static let limit = 2000

    /// Calls, with the `nth` allocation or user copy in it failing.
    func failing(_ nth: Int, _ call: () throws(Errno) -> Void) throws -> Attempt {
        try write(nth)
        var failure: Errno?
        do throws(Errno) {
            try call()
        } catch {
            failure = error
        }
        let attempt = Attempt(error: failure, injected: remaining() == 0)
        try write(0)
        return attempt
    }

    /// Has `attempt` make a call with its first fault, its second and so on, until the call has no more.
    ///
    /// - Parameter repeatable: whether the call may succeed more than once.
    /// - Returns: how often it failed.
    func eachFault(
        repeatable: Bool = true, sourceLocation: SourceLocation = #_sourceLocation,
        _ attempt: (_ nth: Int) throws -> Attempt
    ) throws -> Int {
        var failures = 0
        // Once without any: a page that is touched for the first time has faults of its own.
        if repeatable { _ = try attempt(Self.limit) }
        for nth in 1...Self.limit {
            let outcome = try attempt(nth)
            if let error = outcome.error {
                failures += 1
                #expect(
                    outcome.injected && Self.clean.contains(error), "fault \(nth): \(error)",
                    sourceLocation: sourceLocation)
            }
            if !outcome.injected { return failures }
        }
        Issue.record("still failing at fault \(Self.limit)", sourceLocation: sourceLocation)
        return failures
    }

    private func write(_ nth: Int) throws(Errno) {
        do throws(Errno) {
            try writeOnce(nth)
        } catch {
            // The copy of the number itself was the one to fail, and none is left to fail now.
            guard error == .badAddress else { throw error }
            try writeOnce(nth)
        }
    }

    private func writeOnce(_ nth: Int) throws(Errno) {
        var text = Array("\(nth)".utf8)
        try systemCall(onInterrupt: .retry) { unsafe Glibc.write(failNth.rawValue, &text, text.count) }
    }

    /// How many allocations and copies from now on it fails; 0 once it has.
    private func remaining() -> Int {
        var text = [UInt8](repeating: 0, count: 16)
        let count = try? systemCall(onInterrupt: .retry) {
            unsafe pread(failNth.rawValue, &text, text.count, 0)
        }
        // The copy of the number itself was the one to fail.
        guard let count else { return 1 }
        return Int(String(decoding: text.prefix(count), as: UTF8.self).prefix(while: \.isNumber)) ?? 0
    }
}

/// The numbers of this process's open descriptors. C: `fcntl(F_GETFD)`.
func openDescriptors() -> Set<CInt> {
    Set((0..<1024).filter { fcntl($0, F_GETFD) != -1 })
}
