import com.google.protobuf.CodedInputStream;
import com.google.protobuf.CodedOutputStream;
import com.google.protobuf.WireFormat;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.ClientCalls;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * grpc-java's client of the sensor service: {@code SensorCalls TARGET [CA]}; what it saw goes out as a line of JSON. Messages are
 * written field by field, so that no code has to be generated.
 */
public final class SensorCalls {
  private static final Object END = new Object();
  private static final double[] TEMPERATURES = {20, 31.5, 25};

  /** Bytes as they are. */
  private static final class Raw implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException error) {
        throw new RuntimeException(error);
      }
    }
  }

  private static MethodDescriptor<byte[], byte[]> method(String name, MethodDescriptor.MethodType type) {
    return MethodDescriptor.<byte[], byte[]>newBuilder(new Raw(), new Raw())
        .setType(type)
        .setFullMethodName("sensor.DataService/" + name)
        .build();
  }

  private static byte[] reading(String id, double temperature) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    CodedOutputStream out = CodedOutputStream.newInstance(bytes);
    out.writeString(1, id);
    if (temperature != 0) {
      out.writeDouble(2, temperature);
      out.writeString(4, "caf\u00e9");
      out.writeInt64(5, 1L << 40);
    }
    out.flush();
    return bytes.toByteArray();
  }

  /** Status, alert and time of a SensorResponse. */
  private static Object[] answer(byte[] message) throws IOException {
    Object[] said = {"", "", 0L};
    CodedInputStream in = CodedInputStream.newInstance(message);
    for (int tag = in.readTag(); tag != 0; tag = in.readTag()) {
      int number = WireFormat.getTagFieldNumber(tag);
      if (number == 2 || number == 3) {
        said[number - 2] = in.readString();
      } else if (number == 4) {
        said[2] = in.readInt64();
      } else {
        in.skipField(tag);
      }
    }
    return said;
  }

  private static String quoted(Object text) {
    StringBuilder out = new StringBuilder("\"");
    for (char each : text.toString().toCharArray()) {
      out.append(each < 127 && each != '"' ? String.valueOf(each) : String.format("\\u%04x", (int) each));
    }
    return out.append('"').toString();
  }

  /** A call whose answers are waited for one by one. */
  private static final class Stream extends ClientCall.Listener<byte[]> {
    final BlockingQueue<Object> heard = new ArrayBlockingQueue<>(100);
    final ClientCall<byte[], byte[]> call;
    Status status;

    Stream(ManagedChannel channel, String name, MethodDescriptor.MethodType type) {
      call = channel.newCall(method(name, type), options());
      call.start(this, new Metadata());
      call.request(100);
    }

    @Override
    public void onMessage(byte[] message) {
      heard.add(message);
    }

    @Override
    public void onClose(Status ended, Metadata trailers) {
      status = ended;
      heard.add(END);
    }

    String next() throws Exception {
      return (String) answer((byte[]) heard.poll(30, TimeUnit.SECONDS))[0];
    }
  }

  private static CallOptions options() {
    return CallOptions.DEFAULT.withDeadlineAfter(30, TimeUnit.SECONDS);
  }

  public static void main(String[] words) throws Exception {
    ManagedChannel channel =
        Grpc.newChannelBuilder(
                words[0],
                words.length > 1
                    ? TlsChannelCredentials.newBuilder().trustManager(new File(words[1])).build()
                    : InsecureChannelCredentials.create())
            .build();
    MethodDescriptor<byte[], byte[]> get = method("GetReading", MethodDescriptor.MethodType.UNARY);
    Object[] unary = answer(ClientCalls.blockingUnaryCall(channel, get, options(), reading("s", 31.5)));
    String error = "null";
    try {
      ClientCalls.blockingUnaryCall(channel, get, options(), reading("unknown", 0));
    } catch (StatusRuntimeException refused) {
      StringBuilder hex = new StringBuilder();
      for (byte each : refused.getTrailers().get(Metadata.Key.of("detail-bin", Metadata.BINARY_BYTE_MARSHALLER))) {
        hex.append(String.format("%02x", each));
      }
      Status status = refused.getStatus();
      error = "[" + status.getCode().value() + ", " + quoted(status.getDescription()) + ", " + quoted(hex) + "]";
    }
    Stream upload = new Stream(channel, "UploadReadings", MethodDescriptor.MethodType.CLIENT_STREAMING);
    for (double each : TEMPERATURES) {
      upload.call.sendMessage(reading("s", each));
    }
    upload.call.halfClose();
    String uploaded = upload.next();
    Stream watch = new Stream(channel, "WatchSensor", MethodDescriptor.MethodType.SERVER_STREAMING);
    watch.call.sendMessage(reading("s", 0));
    watch.call.halfClose();
    String watched = watch.next();
    watch.call.cancel("seen", null);
    Stream stream = new Stream(channel, "StreamSensorData", MethodDescriptor.MethodType.BIDI_STREAMING);
    List<String> told = new ArrayList<>();
    for (double each : TEMPERATURES) {
      stream.call.sendMessage(reading("s", each));
      told.add(quoted(stream.next()));
    }
    stream.call.halfClose();
    int more = 0;
    while (stream.heard.poll(30, TimeUnit.SECONDS) != END) {
      more++;
    }
    System.out.printf(
        "{\"unary\": [%s, %s, %d], \"error\": %s, \"upload\": %s, \"watch\": %s, \"stream\": [%s], \"more\": %d, \"ended\": %d}%n",
        quoted(unary[0]), quoted(unary[1]), (Long) unary[2], error, quoted(uploaded), quoted(watched),
        String.join(", ", told), more, stream.status.getCode().value());
    channel.shutdownNow();
  }
}
