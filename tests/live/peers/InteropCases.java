package io.grpc.testing.integration;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

/**
 * Runs several cases of grpc-java's interop client in one virtual machine, which takes longer to start than they take.
 *
 * <p>Arguments: one word for each run, its options and cases parted by spaces, as in
 * {@code "--server_port=50051 --use_tls=false empty_unary ping_pong"}. A line tells of each case; the exit status is the number
 * of those that failed.
 */
public final class InteropCases {
  private InteropCases() {}

  public static void main(String[] runs) throws Exception {
    Method run = TestServiceClient.class.getDeclaredMethod("runTest", TestCases.class);
    Method end = TestServiceClient.class.getDeclaredMethod("tearDown");
    run.setAccessible(true);
    end.setAccessible(true);
    int failed = 0;
    for (String words : runs) {
      String[] options = java.util.Arrays.stream(words.split(" ")).filter(w -> w.startsWith("--")).toArray(String[]::new);
      for (String name : words.split(" ")) {
        if (name.startsWith("--")) {
          continue;
        }
        TestServiceClient client = new TestServiceClient();
        client.parseArgs(options);
        client.setUp();
        String told = "passed";
        try {
          run.invoke(client, TestCases.fromString(name));
        } catch (InvocationTargetException error) {
          failed++;
          told = "failed: " + error.getCause();
          error.getCause().printStackTrace();
        } finally {
          end.invoke(client);
        }
        System.out.println(options[0] + " " + name + " " + told.lines().findFirst().orElse(""));
      }
    }
    System.exit(failed);
  }
}
