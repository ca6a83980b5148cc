// SPDX-License-Identifier: Apache-2.0
//
// A virtual machine with its RAM laid out for guest programs, one on each vCPU.

public import KVM
import SystemPackage

/// RAM and vCPUs for guest programs.
///
/// ```swift
/// let guest = try GuestMachine(in: try system.makeVirtualMachine(), vcpus: 4, capacity: 100_000)
/// let running = try (0..<4).map { index in
///     try guest.start(.mixed, .init(target: 0xd000_0000, count: 100_000, seed: index + 1), on: UInt32(index))
/// }
/// for program in running { try check(try program.join()) }
/// ```
///
/// Slot 0 holds all of the RAM, from guest physical address 0 to ``ramCount``: page tables at 0x1000, a page of code
/// for each vCPU from 0x10000 on, and from 1 MiB on results and scratch for each vCPU. Everything from there to 4 GiB
/// is mapped and free for devices.
public final class GuestMachine: Sendable {
    /// The virtual machine.
    public let machine: VirtualMachine
    /// All of the guest's RAM.
    public let memory: GuestMemory
    /// How many vCPUs there is room for.
    public let vcpus: Int
    /// How many loaded values there is room for on each vCPU.
    public let capacity: Int
    private let pageTables: IdentityPageTables
    private let cpuid: [CPUIDEntry]

    private static let codeStart: UInt64 = 0x10000
    private static let areasStart: UInt64 = 0x10_0000
    private static let headerCount = GuestResults.headerCount

    /// Gives `machine` RAM in slot 0.
    ///
    /// - Parameters:
    ///   - machine: with nothing in slot 0 and nothing below ``ramCount``. It may have interrupt controllers.
    ///   - vcpus: 1 to 128.
    ///   - capacity: loaded values for which there is room on each vCPU, two for a load of 16 bytes.
    /// - Throws: ``KVMError``: EINVAL for numbers that do not fit, errno of the calls.
    public init(in machine: VirtualMachine, vcpus: Int, capacity: Int = 4096) throws {
        guard (1...128).contains(vcpus), (0...(1 << 22)).contains(capacity) else {
            throw KVMError(call: "guest memory layout", errno: .invalidArgument)
        }
        cpuid = try KVMSystem().supportedCPUID()
        self.machine = machine
        self.vcpus = vcpus
        self.capacity = capacity
        let count = Int(Self.areasStart) + vcpus * Self.areaCount(capacity)
        // Devices begin at 3 GiB at the latest.
        guard count <= 3 << 30 else { throw KVMError(call: "guest memory layout", errno: .noMemory) }
        memory = try GuestMemory(at: 0, count: count)
        pageTables = try IdentityPageTables(in: memory, at: 0x1000)
        try machine.setMemory(memory, slot: 0)
    }

    /// Size of the RAM in bytes, and so the first address that is free for devices.
    public var ramCount: Int { memory.count }

    /// Whole pages for the results of a vCPU, and as many again for its scratch.
    private static func areaCount(_ capacity: Int) -> Int {
        2 * ((headerCount + 8 * capacity + GuestMemory.pageSize - 1) & ~(GuestMemory.pageSize - 1))
    }

    private func results(_ index: UInt32) -> UInt64 {
        Self.areasStart + UInt64(index) * UInt64(Self.areaCount(capacity))
    }

    private func scratch(_ index: UInt32) -> UInt64 {
        results(index) + UInt64(Self.areaCount(capacity) / 2)
    }

    /// Makes a vCPU on which nothing is loaded yet, with all of the CPUID that KVM supports: later kernels refuse long
    /// mode without.
    ///
    /// - Parameter id: below ``vcpus``.
    /// - Throws: EEXIST if there is one with that id, EINVAL for one too high.
    public func makeVirtualCPU(id: UInt32) throws(KVMError) -> VirtualCPU {
        guard id < vcpus else { throw KVMError(call: "KVM_CREATE_VCPU", errno: .invalidArgument) }
        var vcpu = try machine.makeVirtualCPU(id: id)
        try vcpu.setCPUID(cpuid)
        return vcpu
    }

    /// Puts a program and its arguments where `vcpu` will begin, and clears its results and scratch.
    ///
    /// - Parameters:
    ///   - program: any program; the vCPU may have run another one to its end.
    ///   - arguments: with a count for which there is room.
    ///   - vcpu: made by ``makeVirtualCPU(id:)``.
    /// - Throws: ``KVMError``; EINVAL for a window below 8 bytes, a count below 0, a string or loads beyond
    ///   ``capacity``.
    public func load(
        _ program: GuestProgram, _ arguments: GuestProgram.Arguments, on vcpu: inout VirtualCPU
    ) throws {
        guard arguments.count >= 0, arguments.window >= program.smallestWindow,
            program.space(arguments) <= capacity, program.code.count <= GuestMemory.pageSize
        else { throw KVMError(call: "load guest program", errno: .invalidArgument) }
        let code = Self.codeStart + UInt64(vcpu.id) * UInt64(GuestMemory.pageSize)
        try memory.copy(program.code, to: code)
        try memory.fill(at: results(vcpu.id), count: Self.areaCount(capacity))
        try vcpu.startInLongMode(
            at: code, pageTables: pageTables,
            arguments: [
                arguments.target, UInt64(arguments.count), results(vcpu.id), arguments.seed, arguments.window,
                scratch(vcpu.id),
            ])
        // With interrupt controllers a vCPU other than 0 would wait for its start-up message.
        try vcpu.setMultiprocessingState(.runnable)
    }

    /// Loads a program on a new vCPU and runs it on a thread of its own.
    ///
    /// - Parameters:
    ///   - program: any program.
    ///   - arguments: with a count for which there is room.
    ///   - index: the vCPU's, below ``vcpus``, not made before.
    ///   - respond: called on that thread for each exit but the program's end; answers a load through the vCPU. It
    ///     throws for an exit that should not be, and without it every exit is one.
    /// - Throws: as ``load(_:_:on:)``; EAGAIN if there is no thread to be had.
    public func start(
        _ program: GuestProgram, _ arguments: GuestProgram.Arguments, on index: UInt32,
        respond: @escaping GuestExitHandler = unexpectedExit
    ) throws -> RunningProgram {
        var vcpu = try makeVirtualCPU(id: index)
        try load(program, arguments, on: &vcpu)
        return try RunningProgram(vcpu, in: self, respond)
    }

    /// What the program on a vCPU has left, or left so far.
    ///
    /// - Parameter index: below ``vcpus``.
    /// - Throws: ``GuestMemory/Fault`` for an index too high.
    public func results(of index: UInt32) throws(GuestMemory.Fault) -> GuestResults {
        try GuestResults(in: memory, at: results(index), capacity: capacity)
    }

    /// The mailbox of a vCPU on which ``GuestProgram/mailbox`` runs.
    ///
    /// - Parameter index: below ``vcpus``.
    public func mailbox(of index: UInt32) -> GuestMailbox {
        GuestMailbox(memory: memory, address: scratch(index))
    }

    /// The list of a vCPU on which ``GuestProgram/script`` runs.
    ///
    /// - Parameters:
    ///   - index: below ``vcpus``.
    ///   - capacity: the count that the program was loaded with.
    public func script(of index: UInt32, capacity: Int) -> GuestScript {
        GuestScript(memory: memory, address: scratch(index), capacity: capacity)
    }
}

extension GuestProgram {
    /// Where the window says something else, it may be nothing.
    fileprivate var smallestWindow: UInt64 { [.bursts, .timed].contains(behaviour) ? 0 : 8 }

    /// How many elements of results or scratch a program needs; the mailbox needs none beyond the first words.
    fileprivate func space(_ arguments: Arguments) -> Int {
        switch behaviour {
        case .stores, .stringStores, .outs, .mailbox, .bursts: 0
        case .loads, .pairs, .mixed, .stringCopyIn, .stringCopyOut, .ins, .stringOuts, .timed: arguments.count
        case .straddling: times(arguments.count, Self.straddlingPairs)
        // Entries of eight words each, and a header of sixteen.
        case .script: times(arguments.count, 16)
        case .sixteen: times(arguments.count, 4)
        }
    }

    private func times(_ count: Int, _ factor: Int) -> Int {
        let (product, overflow) = count.multipliedReportingOverflow(by: factor)
        return overflow ? .max : product
    }
}
