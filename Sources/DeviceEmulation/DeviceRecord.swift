// SPDX-License-Identifier: Apache-2.0
//
// What outlives an emulation process: its device's state, and what it had replied.

public import LinuxSystem
import MMIOForwarding
import Synchronization
public import SystemPackage

/// A device's state and its latest replies in a file that several emulation processes map, one after the other.
///
/// The server commits each batch here before its replies leave, all of it or nothing. So when its process is killed at
/// any moment, and the kernel delivers what was not replied to again (the policy HOLD), the next process
/// - begins with the state after the last batch that was committed,
/// - replies to a redelivered request of a committed batch with what is recorded, and does not carry it out again,
/// - carries out any other redelivered request, which has left no trace in that state.
///
/// To the guest each access happens exactly once. What a device does beyond its own state, an interrupt or a byte on a
/// terminal, may happen twice, and a device whose ``MMIODevice/savedSize`` is 0 begins anew each time.
///
/// Servers that share a device with a record reply in turn, so that what is without a reply is always what was carried
/// out last.
///
/// The file begins with the number of commits, whose lowest bit chooses the half that counts of all below:
/// ```
/// 0       commits
/// 64      two heads of 192 bytes: the number of replies ever recorded, the servers' counters
/// 4096    a ring of replies: sequence number and data
///         two copies of the device's state
/// ```
public final class DeviceRecord: Sendable {
    private let file: RecordFile
    private let progress: Mutex<Progress>

    private struct Progress {
        var commits: UInt64
        var head: RecordFile.Head
        /// Data of the replies that the processes before had recorded, by sequence number.
        let recorded: [UInt64: UInt64]
    }

    /// Makes the file of a device that no process has served yet. C: `memfd_create`.
    ///
    /// It lasts as long as somebody has it open or mapped: whoever starts the processes, say.
    ///
    /// - Throws: errno of the call, EMFILE above all.
    public static func makeFile() throws(Errno) -> OwnedDescriptor {
        // The heads: they are read at any time, and all else is added by the first process.
        try OwnedDescriptor.memoryFile(count: RecordFile.repliesStart)
    }

    /// Maps a file, and finds in it what the processes before have left.
    ///
    /// - Parameters:
    ///   - descriptor: from ``makeFile()``; only processes of the same device map it, one at a time.
    ///   - device: a device of the type that is served.
    ///   - queueDepth: how many requests may be without a reply at a time, `DeviceInformation.queueDepth`; the same
    ///     for all processes.
    /// - Throws: errno of `ftruncate` and `mmap`.
    public init<Device: MMIODevice & ~Copyable>(
        in descriptor: borrowing OwnedDescriptor, of device: borrowing Device, queueDepth: Int
    ) throws(Errno) {
        file = try RecordFile(descriptor, queueDepth: queueDepth, savedSize: device.savedSize)
        let commits = file.commits
        let head = file.head(commits)
        progress = Mutex(Progress(commits: commits, head: head, recorded: file.replies(upTo: head.replies)))
    }

    /// What all processes' servers have committed so far.
    public var counters: ServerCounters { progress.withLock(\.head.counters) }

    /// Reads how far the process that maps a file has come, while it runs or after.
    ///
    /// - Parameter descriptor: from ``makeFile()``.
    /// - Returns: how many batches were committed, and what had been counted by then.
    /// - Throws: errno of the call.
    public static func progress(
        in descriptor: borrowing OwnedDescriptor
    ) throws(Errno) -> (commits: UInt64, counters: ServerCounters) {
        let file = try RecordFile(descriptor, queueDepth: 0, savedSize: 0)
        let commits = file.commits
        return (commits, file.head(commits).counters)
    }

    // MARK: For the server, which holds the device's lock

    /// Puts the device into the state that was committed last, if any was.
    func restore<Device: MMIODevice & ~Copyable>(_ device: inout Device) {
        let commits = progress.withLock(\.commits)
        guard commits > 0 else { return }
        device.restore(from: unsafe file.state(commits).bytes)
    }

    /// The reply to a request that a process before has carried out and committed; nil for any other.
    func recall(
        _ request: ForwardedRequest, counting counters: inout ServerCounters
    ) -> (value: UInt64, outcome: ServedRequest.Outcome)? {
        guard request.isRedelivered else { return nil }
        guard let value = progress.withLock({ $0.recorded[request.sequence] }) else { return nil }
        counters.redelivered &+= 1
        return (value, .recorded)
    }

    /// Writes down what a batch has made of the device, and its replies.
    func commit<Device: MMIODevice & ~Copyable>(
        _ device: borrowing Device, _ replies: ArraySlice<ForwardedReply>,
        _ outcomes: ArraySlice<ServedRequest.Outcome>, _ counters: ServerCounters
    ) {
        progress.withLock { progress in
            // What was recorded before keeps its place: the last ones carried out are the last in the ring.
            for (reply, outcome) in zip(replies, outcomes) where outcome != .recorded {
                file.write(reply, at: progress.head.replies)
                progress.head.replies &+= 1
            }
            progress.head.counters = counters
            progress.commits &+= 1
            file.write(progress.head, for: progress.commits)
            var state = unsafe file.state(progress.commits).mutableBytes
            device.save(to: &state)
            file.setCommits(progress.commits)
        }
    }
}

/// The file's layout. What is written becomes valid with the number of commits.
private struct RecordFile: ~Copyable, Sendable {
    /// The part that is there twice.
    struct Head {
        var replies: UInt64 = 0
        var counters = ServerCounters()
    }

    private struct Reply {
        let sequence: UInt64
        let data: UInt64
    }

    private static let headsStart = 64
    private static let headSize = 192
    static let repliesStart = 4096

    private let mapping: MemoryMapping
    private let queueDepth: Int
    private let savedSize: Int

    init(_ descriptor: borrowing OwnedDescriptor, queueDepth: Int, savedSize: Int) throws(Errno) {
        self.queueDepth = queueDepth
        // Whole words, so that the second copy begins on one.
        self.savedSize = savedSize & ~7 + (savedSize & 7 == 0 ? 0 : 8)
        let size =
            Self.repliesStart + 2 * queueDepth * MemoryLayout<Reply>.stride + 2 * self.savedSize
        try descriptor.grow(to: size)
        mapping = try MemoryMapping(mapping: descriptor, count: size)
    }

    // SAFETY: all places below lie in the mapping, as `init` has laid it out, and hold plain numbers only.

    private var commitCount: UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe mapping.baseAddress.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    var commits: UInt64 { unsafe commitCount.pointee.load(ordering: .acquiring) }

    /// A process may be killed right after: by then all that was written before is there.
    func setCommits(_ count: UInt64) {
        unsafe commitCount.pointee.store(count, ordering: .sequentiallyConsistent)
    }

    private func place(ofHead commits: UInt64) -> UnsafeMutableRawPointer {
        unsafe mapping.baseAddress + Self.headsStart + Int(commits & 1) * Self.headSize
    }

    func head(_ commits: UInt64) -> Head {
        unsafe commits == 0 ? Head() : place(ofHead: commits).loadUnaligned(as: Head.self)
    }

    func write(_ head: Head, for commits: UInt64) {
        unsafe place(ofHead: commits).storeBytes(of: head, as: Head.self)
    }

    private func place(ofReply number: UInt64) -> UnsafeMutableRawPointer {
        // Twice as many as can be without a reply: a batch under way overwrites none that can be asked for.
        let position = Int(number % UInt64(max(2 * queueDepth, 1)))
        return unsafe mapping.baseAddress + Self.repliesStart + position * MemoryLayout<Reply>.stride
    }

    func write(_ reply: ForwardedReply, at number: UInt64) {
        guard queueDepth > 0 else { return }
        unsafe place(ofReply: number).storeBytes(
            of: Reply(sequence: reply.sequence, data: reply.data), as: Reply.self)
    }

    /// The last replies, as many as can be without one, by their sequence numbers.
    func replies(upTo end: UInt64) -> [UInt64: UInt64] {
        var replies: [UInt64: UInt64] = [:]
        for number in end &- min(end, UInt64(queueDepth))..<end {
            let reply = unsafe place(ofReply: number).loadUnaligned(as: Reply.self)
            replies[reply.sequence] = reply.data
        }
        return replies
    }

    func state(_ commits: UInt64) -> UnsafeMutableRawBufferPointer {
        let start = Self.repliesStart + 2 * queueDepth * MemoryLayout<Reply>.stride + Int(commits & 1) * savedSize
        return unsafe UnsafeMutableRawBufferPointer(start: mapping.baseAddress + start, count: savedSize)
    }
}
