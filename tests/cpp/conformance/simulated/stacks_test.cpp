// The table of the conformance suites (stacks.hpp) is complete: it is compared with the headers that there are.
#include "support/stacks.hpp"

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

namespace cenote::test {
namespace {

/// The kinds of the resources and adaptors that the folder's headers define.
std::set<std::string> kinds_in(const std::string& folder) {
  std::set<std::string> kinds;
  const std::regex a_class(R"(\nclass \w+ final : public (\w+))");
  const std::regex a_kind(R"re(std::string kind\(\) const override \{ return "(\w+)"; \})re");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".hpp") continue;
    std::stringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const std::string header = text.str();
    std::smatch found;
    const bool is_resource = std::regex_search(header, found, a_class) &&
                             (found[1].str().ends_with("memory_resource") || found[1] == "resource_adaptor");
    const bool has_kind = std::regex_search(header, found, a_kind);
    EXPECT_EQ(is_resource, has_kind) << entry.path()
                                     << ": a resource is a final class that says its kind in its header";
    if (has_kind) kinds.insert(found[1]);
  }
  return kinds;
}

TEST(the_table, has_every_resource_and_adaptor_that_there_is) {
  std::set<std::string> in_the_table;
  for (const stack& s : every_stack()) {
    for (const part* p : s.parts) in_the_table.insert(p->kind);
  }
  std::set<std::string> defined = kinds_in(CENOTE_HEADERS "/resources");
  EXPECT_GE(defined.size(), 13u);
  defined.merge(kinds_in(CENOTE_HEADERS "/adaptors"));
  EXPECT_EQ(in_the_table, defined);
}

TEST(the_table, names_each_stack_once) {
  std::set<std::string> names;
  for (const stack& s : every_stack()) EXPECT_TRUE(names.insert(s.name()).second) << s.name();
}

}  // namespace
}  // namespace cenote::test
