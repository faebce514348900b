"""Names for a debugger."""

import io

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from vmtests.image.kallsyms import TEXT, Symbols
from vmtests.qemu.gdb import elf

SYMBOLS = Symbols(
    addresses=tuple(TEXT + 64 * number for number in range(300)), names=tuple(f"function_{n}" for n in range(300))
)


def test_functions_are_where_the_kernel_runs() -> None:
    """Each function is in the file, as far away from where it was linked as KASLR has put the kernel."""
    file = ELFFile(io.BytesIO(elf(SYMBOLS, TEXT + 0x1E200000)))
    assert ("EM_X86_64", 64) == (file["e_machine"], file.elfclass)
    table = file.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    names = table.get_symbol_by_name("function_7")
    assert names is not None
    (found,) = names
    assert (TEXT + 0x1E200000 + 7 * 64, 64) == (found["st_value"], found["st_size"])
    assert 301 == table.num_symbols()


def test_text_has_every_function() -> None:
    """A debugger looks up an address in the section that has it."""
    file = ELFFile(io.BytesIO(elf(SYMBOLS, TEXT)))
    text = file.get_section_by_name(".text")
    assert text is not None
    assert text["sh_addr"] == TEXT
    assert text["sh_addr"] + text["sh_size"] > SYMBOLS.addresses[-1]
