// SPDX-License-Identifier: Apache-2.0
//
// Starting a vCPU straight in 64-bit mode: page tables that map addresses to themselves, and the registers for them.

/// Page tables for long mode that map linear addresses 0 to 4 GiB to the same physical ones, in pages of 2 MiB.
///
/// All of it is writable, executable and for supervisor and user alike. The tables are 6 pages: one of level 4, one of
/// level 3, four of level 2. vCPUs can share them.
public struct IdentityPageTables: Hashable, Sendable {
    /// Guest physical address of the level 4 table, for CR3.
    public let address: UInt64

    /// Size of the tables in bytes.
    public static let count = 6 * GuestMemory.pageSize

    /// The addresses below this are mapped: 4 GiB.
    public static let limit: UInt64 = 1 << 32

    /// Writes the tables.
    ///
    /// - Parameters:
    ///   - memory: where they go.
    ///   - address: guest physical address for them, a multiple of the page size.
    /// - Throws: ``GuestMemory/Fault`` if they are not inside `memory`, or `address` is not aligned.
    public init(in memory: GuestMemory, at address: UInt64) throws(GuestMemory.Fault) {
        let page = UInt64(GuestMemory.pageSize)
        guard address % page == 0, memory.contains(address, count: Self.count) else {
            throw GuestMemory.Fault(address: address, count: Self.count)
        }
        self.address = address
        try memory.fill(at: address, count: Self.count)
        try memory.store((address + page) | Entry.table, at: address)
        for gibibyte in 0..<UInt64(4) {
            let directory = address + (2 + gibibyte) * page
            try memory.store(directory | Entry.table, at: address + page + 8 * gibibyte)
            for position in 0..<UInt64(512) {
                let physical = gibibyte << 30 | position << 21
                try memory.store(physical | Entry.page, at: directory + 8 * position)
            }
        }
    }

    private enum Entry {
        /// Present, writable, user.
        static let table: UInt64 = 0b111
        /// The same, a 2 MiB page, accessed and dirty already so that the CPU never writes to the tables.
        static let page: UInt64 = 0b1110_0111
    }
}

extension SpecialRegisters {
    /// Makes these the registers of 64-bit supervisor mode: long mode with paging, flat segments, SSE allowed,
    /// no interrupt table.
    ///
    /// With no interrupt table the first exception of the guest is a triple fault, ``VirtualCPU/Exit/shutdown``.
    ///
    /// - Parameter pageTables: for CR3.
    public mutating func enterLongMode(_ pageTables: IdentityPageTables) {
        // Code: execute, read, accessed, non-system, DPL 0, present; L and G. Data: read, write; D/B and G.
        cs = Segment(selector: 0x08, access: 0x9b, flags: 0b1010)
        let data = Segment(selector: 0x10, access: 0x93, flags: 0b1100)
        (ds, es, fs, gs, ss) = (data, data, data, data, data)
        // A busy 64-bit task segment: Intel CPUs refuse to enter a guest without one.
        tr = Segment(selector: 0, limit: 0xffff, access: 0x8b, flags: 0)
        gdt = DescriptorTable(base: 0, limit: 0)
        idt = DescriptorTable(base: 0, limit: 0)
        cr0 = 0x8000_0033  // PG, NE, ET, MP, PE
        cr3 = pageTables.address
        cr4 = 0x620  // OSXMMEXCPT, OSFXSR, PAE
        efer = 0x500  // LMA, LME
    }
}

extension VirtualCPU {
    /// Makes the vCPU begin in 64-bit supervisor mode at `entry`. C: `KVM_SET_SREGS`, `KVM_SET_REGS`.
    ///
    /// - Parameters:
    ///   - entry: address of the first instruction.
    ///   - stack: the stack pointer; 0 for code that needs no stack.
    ///   - pageTables: in the guest's memory.
    ///   - arguments: go where the System V calling convention has them: rdi, rsi, rdx, rcx, r8, r9; what is
    ///     missing is 0, and a seventh is ignored.
    /// - Throws: EINVAL if the vCPU's CPUID has no long mode, which to later kernels (6.12 is one) means also that
    ///   ``setCPUID(_:)`` was not called; errno of the calls.
    public mutating func startInLongMode(
        at entry: UInt64, stack: UInt64 = 0, pageTables: IdentityPageTables, arguments: [UInt64] = []
    ) throws(KVMError) {
        var special = try specialRegisters()
        special.enterLongMode(pageTables)
        try setSpecialRegisters(special)
        let argument = { (position: Int) in position < arguments.count ? arguments[position] : 0 }
        var registers = Registers()
        registers.rip = entry
        registers.rsp = stack
        (registers.rdi, registers.rsi, registers.rdx) = (argument(0), argument(1), argument(2))
        (registers.rcx, registers.r8, registers.r9) = (argument(3), argument(4), argument(5))
        try setRegisters(registers)
    }
}
