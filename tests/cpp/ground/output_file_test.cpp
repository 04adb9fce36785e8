// Files that cenote writes: who may write one, what is in it in the end, and which links are followed.
#include "cenote/ground/output_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#include "cenote/ground/error.hpp"

namespace cenote {
namespace {

using sharing = output_file::sharing;

class output_files : public ::testing::Test {
 protected:
  output_files() {
    std::string pattern = testing::TempDir() + "cenote_output_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~output_files() override { std::filesystem::remove_all(folder_); }

  std::string path(const char* name = "log") const { return folder_ + "/" + name; }

  std::string text(const char* name = "log") const {
    std::ostringstream all;
    all << std::ifstream(path(name)).rdbuf();
    return all.str();
  }

  static void write(output_file& file, std::string_view line) { EXPECT_TRUE(file.write({&line, 1})); }

  static std::string refusal(const std::string& path, sharing with = sharing::alone) {
    try {
      const output_file file("file", path, with);
      return "";
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  }

  /// Runs `body` in a forked child, which it is to leave with true; what it has open is its own affair.
  static bool is_true_in_child(const std::function<bool()>& body) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      _exit(body() ? 0 : 1);
    }
    int status = -1;
    return waitpid(child, &status, 0) == child && status == 0;
  }

 private:
  std::string folder_;
};

TEST_F(output_files, are_begun_anew_also_for_those_that_write_them) {
  output_file first("file", path(), sharing::alone, "heading\n");
  write(first, "of before\n");
  first.flush();
  write(first, "buffered before\n");
  output_file second("file", path(), sharing::alone, "heading\n");
  write(second, "of the second\n");
  write(first, "of the first\n");
  EXPECT_EQ(second.flush(), 0);
  EXPECT_EQ(text(), "heading\nof the second\nof the first\n");
}

TEST_F(output_files, are_one_by_any_name) {
  output_file first("file", path(), sharing::alone, "heading\n");
  std::filesystem::create_symlink("log", path("link"));
  std::filesystem::create_hard_link(path(), path("hard"));
  output_file by_link("file", path("link"), sharing::alone, "heading\n");
  output_file by_hard_link("file", path("hard"), sharing::alone, "heading\n");
  for (output_file* const each : {&first, &by_link, &by_hard_link}) write(*each, "line\n");
  first.flush();
  EXPECT_EQ(text(), "heading\nline\nline\nline\n");
}

TEST_F(output_files, keep_the_lines_of_many_threads_whole) {
  {
    output_file file("file", path(), sharing::alone);
    output_file again("file", path(), sharing::alone);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        const std::string line = std::string(100, static_cast<char>('a' + i)) + "\n";
        for (int n = 0; n < 1000; ++n) write(n % 2 == 0 ? file : again, line);
      });
    }
    for (std::thread& each : threads) each.join();
  }
  std::ifstream read(path());
  int lines = 0;
  for (std::string line; std::getline(read, line); ++lines) {
    ASSERT_EQ(line.size(), 100u);
    ASSERT_EQ(line.find_first_not_of(line[0]), std::string::npos);
  }
  EXPECT_EQ(lines, 4000);
}

TEST_F(output_files, take_lines_longer_than_the_buffer_in_their_order) {
  const std::string longest(100'000, 'x');
  output_file file("file", path(), sharing::alone);
  write(file, "before\n");
  write(file, longest);
  write(file, "after\n");
  file.flush();
  EXPECT_EQ(text(), "before\n" + longest + "after\n");
}

TEST_F(output_files, of_one_process_alone_are_refused_to_another_while_it_writes_them) {
  auto file = std::make_optional<output_file>("file", path(), sharing::alone, "heading\n");
  std::array<int, 2> ends{}, ready{};
  ASSERT_EQ(pipe(ends.data()), 0);
  ASSERT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  if (child == 0) {  // a fork has none of its parent's files, and is another process
    alarm(30);
    const std::string before = refusal(path());
    char byte = 0;
    if (::write(ready[1], "x", 1) != 1 || read(ends[0], &byte, 1) != 1) _exit(3);
    _exit(before.find("another process") == std::string::npos || before.find("%p") == std::string::npos ? 1
          : refusal(path()).empty()                                                                     ? 0
                                                                                                        : 2);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(text(), "");
  write(*file, "line\n");
  file->flush();
  EXPECT_EQ(text(), "heading\nline\n");
  file.reset();
  ASSERT_EQ(::write(ends[1], "x", 1), 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(output_files, that_are_shared_are_begun_anew_by_the_first_process_alone) {
  std::ofstream(path()) << "of long ago\n";
  output_file file("file", path(), sharing::shared);
  write(file, "of the parent\n");
  file.flush();
  EXPECT_TRUE(is_true_in_child([&] {
    output_file other("file", path(), sharing::shared);
    const std::string_view line = "of the child\n";
    return other.write({&line, 1}) && other.flush() == 0;
  }));
  write(file, "of the parent again\n");
  file.flush();
  EXPECT_EQ(text(), "of the parent\nof the child\nof the parent again\n");
}

TEST_F(output_files, that_are_appended_keep_what_they_have) {
  for (const char* const line : {"one\n", "two\n"}) {
    output_file file("file", path(), sharing::appended);
    write(file, line);
  }
  EXPECT_EQ(text(), "one\ntwo\n");
}

TEST_F(output_files, are_written_out_by_the_process_that_opened_them_and_by_no_child) {
  output_file file("file", path(), sharing::alone);
  write(file, "buffered\n");
  const pid_t child = fork();
  if (child == 0) {
    bool is_refused = false;
    try {
      file.flush();
    } catch (const driver_unavailable&) {
      is_refused = true;
    }
    std::exit(is_refused ? 0 : 1);  // with all that a normal end does
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(text(), "");
  file.flush();
  EXPECT_EQ(text(), "buffered\n");
}

TEST_F(output_files, are_written_out_at_the_end_of_the_process) {
  EXPECT_EXIT(
      {
        auto* const never_destroyed = new output_file("file", path(), sharing::alone);
        write(*never_destroyed, "buffered\n");
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
  EXPECT_EQ(text(), "buffered\n");
}

TEST_F(output_files, say_what_could_not_be_written_until_they_are_begun_anew) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "there is no /dev/full";
  output_file file("file", "/dev/full", sharing::alone);
  write(file, "line\n");
  EXPECT_EQ(file.flush(), ENOSPC);
  EXPECT_EQ(file.flush(), ENOSPC) << "the line is lost for good";
}

TEST_F(output_files, named_as_what_is_open_already_are_that) {
  const int out = dup(STDOUT_FILENO);
  const int target = open(path().c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(::write(target, "before\n", 7), 7);
  ASSERT_EQ(dup2(target, STDOUT_FILENO), STDOUT_FILENO);
  for (const std::string& name :
       {std::string("/dev/stdout"), "/dev/fd/" + std::to_string(target), "/proc/self/fd/" + std::to_string(target)}) {
    output_file file("file", name, sharing::alone);
    write(file, "line\n");
  }
  std::filesystem::create_symlink("/dev/stdout", path("link"));
  {
    output_file file("file", path("link"), sharing::shared);
    write(file, "line\n");
  }
  dup2(out, STDOUT_FILENO);
  close(out);
  close(target);
  EXPECT_EQ(text(), "before\nline\nline\nline\nline\n");
}

TEST_F(output_files, are_not_found_through_a_link_of_another_user) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to make another user's link";
  std::ofstream(path("precious")) << "precious\n";
  std::filesystem::create_symlink(path("precious"), path());
  ASSERT_EQ(lchown(path().c_str(), 65534, 65534), 0);
  std::filesystem::create_symlink(path(), path("own"));  // and a link of one's own to it
  for (const sharing with : {sharing::alone, sharing::shared, sharing::appended}) {
    EXPECT_NE(refusal(path(), with).find("another user"), std::string::npos);
    EXPECT_NE(refusal(path("own"), with).find("another user"), std::string::npos);
  }
  EXPECT_EQ(text("precious"), "precious\n");
}

TEST_F(output_files, in_a_circle_of_links_or_no_folder_are_refused_by_their_name) {
  std::filesystem::create_symlink("log", path());
  EXPECT_EQ(refusal(path()), "the file '" + path() + "' cannot be opened: Too many levels of symbolic links");
  EXPECT_EQ(refusal("/no/folder/log"), "the file '/no/folder/log' cannot be opened: No such file or directory");
}

TEST(names_of_output_files, have_the_number_of_the_process_where_they_ask_for_it) {
  const std::string number = std::to_string(getpid());
  EXPECT_EQ(with_process_number("a.%p.csv"), "a." + number + ".csv");
  EXPECT_EQ(with_process_number("%p%p"), number + number);
  EXPECT_EQ(with_process_number("100%.csv"), "100%.csv");
}

}  // namespace
}  // namespace cenote
