// SPDX-License-Identifier: Apache-2.0
//
// A kernel that the module cannot attach to.

import Glibc
import KernelModule
import SystemPackage
import Testing

@Suite("Attaching", .serialized)
struct AttachTests {
    @Test(
        "a kernel without one of the functions is refused at load: EOPNOTSUPP, one line that names it, nothing left",
        arguments: [
            "kvm_register_device_ops", "kvm_unregister_device_ops", "kvm_io_bus_register_dev",
            "kvm_io_bus_unregister_dev",
        ])
    func lacksFunction(function: String) throws {
        try ModuleUnderTest.unloadIfLoaded()
        let log = try FileDescriptor.open(FilePath("/dev/kmsg"), .readOnly, options: .nonBlocking)
        defer { try? log.close() }
        try log.seek(offset: 0, from: .end)

        let error = #expect(throws: ModuleError.self) {
            try ModuleUnderTest.load(.test, parameters: ["lacks=\(function)"])
        }
        #expect(error?.errno == .notSupported)
        #expect(error?.cause == "this kernel's KVM does not have a function that it needs, and the kernel log names it")
        #expect(ModuleState(of: "kvm_user").phase == .notLoaded)

        let lines = try records(of: log).filter { $0.contains("kvm_user: ") && !$0.contains("taint") }
        #expect(lines.count == 1)
        #expect(lines.first?.hasSuffix("kvm_user: cannot attach to this kernel's KVM: no \(function) (-2)") == true)

        // Nothing that the attempt left is in the way of the next.
        try ModuleUnderTest.load()
        try ModuleUnderTest.unload()
    }

    /// The messages that `log` still has, without their continuation lines. One read gives one: read(2) on /dev/kmsg.
    private func records(of log: FileDescriptor) throws -> [String] {
        var found: [String] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 1)
        defer { unsafe buffer.deallocate() }
        while let count = try? unsafe log.read(into: buffer), count > 0 {
            let record = unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
            found.append(String(record.prefix { $0 != "\n" }))
        }
        return found
    }
}
