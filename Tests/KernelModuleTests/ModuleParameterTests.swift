// SPDX-License-Identifier: Apache-2.0
//
// Parameters as given, and the kernel's number formats.

import KernelModule
import SystemPackage
import Testing

@Suite("Module parameter")
struct ModuleParameterTests {
    @Test(
        "name=value is taken apart at the first '=', dashes become underscores",
        arguments: [
            ("queue_depth=64", "queue_depth", "64", "queue_depth=64"),
            ("queue-depth=64", "queue_depth", "64", "queue_depth=64"),
            ("a=b=c", "a", "b=c", "a=b=c"),
            ("name=", "name", "", "name="),
            ("dyndbg=file x.c +p", "dyndbg", "file x.c +p", "dyndbg=\"file x.c +p\""),
        ])
    func parses(text: String, name: String, value: String, commandLine: String) throws {
        let parameter = try ModuleParameter(parsing: text)
        #expect(parameter.name == name)
        #expect(parameter.value == value)
        #expect(parameter.description == commandLine)
    }

    @Test(
        "what the kernel's parser would misread is refused",
        arguments: [
            "", "queue_depth", "=64", "queue depth=64",
            "a\"=1", "a=\"1\"", "a=1\nb=2", "a=1\0", "a=\u{7f}", "größe=1",
        ])
    func refuses(text: String) {
        let error = #expect(throws: ModuleError.self) { try ModuleParameter(parsing: text) }
        #expect(error?.errno == .invalidArgument)
        #expect(error?.remedy.isEmpty == false)
    }

    @Test(
        "numbers are read as the kernel does: in range, base 8, 10 or 16",
        arguments: [
            ("uint", "0", true), ("uint", "4294967295", true), ("uint", "4294967296", false), ("uint", "-1", false),
            ("uint", "0x40", true), ("uint", "0X40", true), ("uint", "0x", false), ("uint", "010", true),
            ("uint", "08", false), ("uint", "1k", false), ("uint", " 1", false), ("uint", "+1", true),
            ("uint", "+-1", false), ("uint", "--1", false), ("uint", "0x-1", false), ("uint", "", false),
            ("int", "-2147483648", true), ("int", "-2147483649", false), ("int", "2147483647", true),
            ("int", "2147483648", false), ("int", "-0x10", true), ("short", "32768", false), ("byte", "256", false),
            ("ushort", "65535", true), ("ulong", "18446744073709551615", true),
            ("ulong", "18446744073709551616", false),
            ("long", "-9223372036854775808", true), ("bool", "Y", true), ("bool", "2", false), ("bool", "off", true),
            ("charp", "anything", true), ("array of int", "1,2", true),
        ])
    func accepts(type: String, value: String, accepted: Bool) throws {
        let fake = try FakeTree()
        try fake.write(ModuleImage.bytes(["name=x", "vermagic=6.1 ", "parmtype=p:\(type)"]), to: "x.ko")
        let declared = try ModuleFile(at: fake.tree.path("x.ko")).parameters
        #expect(declared.map { $0.accepts(value) } == [accepted])
    }
}
