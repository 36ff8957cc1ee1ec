package org.apache.spark.sql.tuttilab

import java.io.{ByteArrayOutputStream, PrintStream, PrintWriter, StringWriter}
import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock

import scala.tools.nsc.Settings
import scala.tools.nsc.interpreter.{IMain, Results}
import scala.tools.nsc.interpreter.shell.ReplReporterImpl

import com.fasterxml.jackson.databind.ObjectMapper
import org.apache.spark.sql.api.java.UDF3
import org.apache.spark.sql.classic.{Dataset, SparkSession}

/**
 * A cell of Scala as a function of SQL: its id, its code and the name of the view for a Dataset that it ends with; gives JSON.
 *
 * It is evaluated while the query is optimized, so in the driver, in the thread of the operation: what the cell starts has the
 * operation's tags. An id that was answered is not run again, however often the optimizer asks.
 */
class ScalaCell extends UDF3[String, String, String, String] {
  @transient private lazy val lock = new ReentrantLock
  @transient private var repl: Repl = _
  @transient private var last: (String, String) = ("", "")

  override def call(id: String, code: String, view: String): String = {
    if (!lock.tryLock(5, TimeUnit.SECONDS)) return Answer("Busy").json
    try {
      if (last == null || last._1 != id) last = (id, run(code, view))
      last._2
    } finally lock.unlock()
  }

  private def run(code: String, view: String): String = {
    val loader = Thread.currentThread.getContextClassLoader
    val isAnew = repl != null && repl.loader != loader
    if (repl == null || isAnew) repl = new Repl(SparkSession.active, loader)
    val answer = repl.run(code, view)
    answer.fields.put("anew", isAnew)
    answer.json
  }
}

/** Classes that it makes lie where Spark looks for those of this session, in the driver and for executors. */
class Repl(session: SparkSession, val loader: ClassLoader) {
  private val said = new StringWriter
  private val interpreter = {
    val settings = new Settings(message => said.write(message + "\n"))
    val manager = session.artifactManager
    val classes = manager.getClass.getMethod("classDir").invoke(manager).toString // protected in Scala only
    val arguments = List("-Yrepl-class-based", "-Yrepl-outdir", classes, "-Wconf:cat=deprecation:s",
      "-classpath", System.getProperty("java.class.path"))
    settings.processArguments(arguments, processAll = true)
    new IMain(settings, Some(loader), settings, new ReplReporterImpl(settings, new PrintWriter(said, true)))
  }

  for (line <- Seq(
      "@transient val spark = org.apache.spark.sql.classic.SparkSession.active",
      "@transient val sc = spark.sparkContext",
      "@transient val sqlContext = spark.sqlContext",
      "import spark.implicits._", "import spark.sql", "import org.apache.spark.sql.functions._"))
    interpreter.quietRun(line)

  def run(code: String, view: String): Answer = {
    said.getBuffer.setLength(0)
    val printed = new ByteArrayOutputStream
    val stream = new PrintStream(printed, true, "UTF-8")
    val before = interpreter.mostRecentVar
    val state = Console.withOut(stream)(Console.withErr(stream)(interpreter.interpret(code)))
    val answer = Answer(state.toString)
    answer.fields.put("said", Answer.cut(said.toString))
    answer.fields.put("printed", Answer.cut(printed.toString("UTF-8")))
    if (state == Results.Success && interpreter.mostRecentVar != before) {
      interpreter.valueOfTerm(interpreter.mostRecentVar) match {
        case Some(rows: Dataset[_]) =>
          rows.createOrReplaceTempView(view)
          answer.fields.put("view", view)
        case Some(value @ (_: Number | _: Boolean | _: String)) => answer.fields.put("value", value)
        case Some(value) if value != null => answer.fields.put("value", Answer.cut(value.toString))
        case _ =>
      }
    }
    answer
  }
}

case class Answer(state: String) {
  val fields = new java.util.HashMap[String, Any]
  fields.put("state", state)
  def json: String = new ObjectMapper().writeValueAsString(fields)
}

object Answer {
  private val most = 1000000
  def cut(text: String): String =
    if (text.length <= most) text else text.take(most) + s"\n… ${text.length - most} more characters"
}
